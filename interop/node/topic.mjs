// Creates a topic as an operator would. The client itself cannot, and sends to no topic that is not there.

import { connect } from "node:net";

const GET_ROUTE = 105;
const UPDATE_TOPIC = 17;
const AUTO_CREATE_TOPIC = "TBW102";

/** Sends one request of RocketMQ's protocol to `address`, and returns header and body of the answer. */
function ask(address, code, extFields) {
  const [host, port] = address.split(":");
  const header = Buffer.from(JSON.stringify({ code, language: "OTHER", version: 0, opaque: 1, flag: 0, extFields }));
  const lengths = Buffer.alloc(8);
  lengths.writeUInt32BE(4 + header.length, 0);
  lengths.writeUInt32BE(header.length, 4);
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port: Number(port) }, () => socket.write(Buffer.concat([lengths, header])));
    let received = Buffer.alloc(0);
    socket.on("error", reject);
    socket.on("close", () => reject(new Error(`${address} closed the connection`)));
    socket.on("data", (data) => {
      received = Buffer.concat([received, data]);
      if (received.length < 8 || received.length < 4 + received.readUInt32BE(0)) return;
      const end = 8 + (received.readUInt32BE(4) & 0xffffff);
      resolve({ header: JSON.parse(received.subarray(8, end)), body: received.subarray(end) });
      socket.destroy();
    });
  });
}

/** `topic` with four queues on each broker that creates topics. */
export async function createTopic(nameServer, topic) {
  const route = await ask(nameServer, GET_ROUTE, { topic: AUTO_CREATE_TOPIC, acceptStandardJsonOnly: "true" });
  for (const broker of JSON.parse(route.body).brokerDatas) {
    const created = await ask(broker.brokerAddrs["0"], UPDATE_TOPIC, {
      topic, defaultTopic: AUTO_CREATE_TOPIC, readQueueNums: "4", writeQueueNums: "4", perm: "6",
      topicFilterType: "SINGLE_TAG", topicSysFlag: "0", order: "false",
    });
    if (created.header.code !== 0) throw new Error(`the topic was refused: ${created.header.code} ${created.header.remark}`);
  }
}
