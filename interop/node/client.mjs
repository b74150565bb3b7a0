// Programs for the JavaScript client of RocketMQ.
//
//     node client.mjs <name server> [SCENARIO...]
//
// Prints a line for each scenario, and ends with 0 if all of them held and with 1 otherwise.

import ons from "ali-ons";
import urllib from "urllib";

import { createTopic } from "./topic.mjs";

const { Consumer, Message, Producer } = ons;
const PATIENCE_MILLIS = 1000 * Number(process.env.INTEROP_PATIENCE ?? 90);
const POLL_MILLIS = 10;
const quiet = { info() {}, warn() {}, error() {}, debug() {} };

/** What was sent, acknowledged and consumed, by the text of the message. */
class Tally {
  constructor(scenario) {
    this.prefix = `${scenario} message `;
    this.sent = new Set();
    this.acknowledged = new Map();
    this.consumed = new Map();
    this.places = new Map();
    this.last = new Map();
    this.failures = [];
  }

  next(topic, tags = "TagA") {
    const text = `${this.prefix}${this.sent.size}`;
    this.sent.add(text);
    const message = new Message(topic, tags, text);
    message.keys = [`key-${this.sent.size - 1}`];
    return [text, message];
  }

  accepted(text, result) {
    this.check(result.sendStatus === "SEND_OK", `send status ${result.sendStatus}`);
    this.acknowledged.set(text, `${result.messageQueue.brokerName} ${result.messageQueue.queueId} ${result.queueOffset}`);
  }

  /** `queue` is the message's; the consumer works on one message of a queue after another. */
  received(message, queue) {
    const text = message.body.toString();
    const count = (this.consumed.get(text) ?? 0) + 1;
    this.consumed.set(text, count);
    const name = `${queue.topic} ${queue.brokerName} ${queue.queueId}`;
    const offset = Number(message.queueOffset);
    const place = `${queue.brokerName} ${queue.queueId} ${offset}`;
    this.places.set(text, [...(this.places.get(text) ?? []), place]);
    if (count === 1) {
      this.check(offset > (this.last.get(name) ?? -1), `offset ${offset} came after ${this.last.get(name)} of ${name}`);
      this.last.set(name, offset);
    }
  }

  check(condition, failure) {
    if (!condition) this.failures.push(failure);
  }

  lost() {
    return [...this.acknowledged.keys()].filter((text) => !this.consumed.has(text)).length;
  }

  async consumedAll() {
    if (!(await waitFor(() => this.lost() === 0))) throw new Error("waited in vain for messages");
  }

  /** Each message was consumed where the acknowledgement said it lies. */
  checkPlaces() {
    for (const [text, place] of this.acknowledged) {
      this.check(this.places.get(text)?.includes(place), `${text} acknowledged at ${place}, consumed at ${this.places.get(text)}`);
    }
  }

  close() {
    const phantom = [...this.consumed.keys()].filter((text) => !this.sent.has(text)).length;
    const duplicated = [...this.consumed.values()].reduce((sum, count) => sum + count - 1, 0);
    this.check(this.lost() === 0, `${this.lost()} acknowledged messages were not consumed`);
    this.check(phantom === 0, `${phantom} messages were consumed that nobody sent`);
    return `sent=${this.sent.size} acknowledged=${this.acknowledged.size} consumed=${this.consumed.size} `
      + `duplicated=${duplicated} lost=${this.lost()} phantom=${phantom}`;
  }
}

async function waitFor(condition) {
  const deadline = Date.now() + PATIENCE_MILLIS;
  while (!condition()) {
    if (Date.now() > deadline) return false;
    await new Promise((resolve) => setTimeout(resolve, POLL_MILLIS));
  }
  return true;
}

/** One play of a scenario: its names and its clients. */
class Run {
  constructor(nameServer, scenario) {
    this.suffix = `js-${scenario}-${Date.now()}`;
    this.topic = `interop-${this.suffix}`;
    // The client signs each request with the keys, and no broker without access control reads them.
    this.options = { httpclient: urllib, nameSrv: nameServer.split(";"), accessKeyId: "a", accessKeySecret: "b", logger: quiet };
    this.clients = [];
  }

  async producer() {
    const producer = new Producer({ ...this.options, producerGroup: `producer-${this.suffix}`, instanceName: `p-${this.suffix}` });
    producer.on("error", () => {});
    await producer.ready();
    this.clients.push(producer);
    return producer;
  }

  async consumer(handler, tags = "*", group = "consumer") {
    const consumer = new Consumer({
      ...this.options,
      consumerGroup: `${group}-${this.suffix}`,
      instanceName: `${group}-${this.suffix}`,
      consumeFromWhere: "CONSUME_FROM_FIRST_OFFSET",
    });
    consumer.on("error", () => {});
    consumer.subscribe(this.topic, tags, handler);
    await consumer.ready();
    this.clients.push(consumer);
    return consumer;
  }

  async close() {
    for (const client of this.clients.reverse()) await client.close();
  }
}

async function send(producer, run, tally, count, tags) {
  for (let sent = 0; sent < count; sent++) {
    const [text, message] = tally.next(run.topic, tags?.[sent % tags.length]);
    tally.accepted(text, await producer.send(message));
  }
}

const scenarios = {
  async "sync-send"(run, tally) {
    const producer = await run.producer();
    await send(producer, run, tally, 50);
    await run.consumer(async (message, queue) => tally.received(message, queue));
    await tally.consumedAll();
    tally.checkPlaces();
  },

  async "push-consume"(run, tally) {
    const producer = await run.producer();
    await send(producer, run, tally, 1);
    await run.consumer(async (message, queue) => tally.received(message, queue));
    await tally.consumedAll();
    await send(producer, run, tally, 100);
    await tally.consumedAll();
    tally.checkPlaces();
  },

  async "tag-filter"(run, tally) {
    const producer = await run.producer();
    await send(producer, run, tally, 30, ["Coffee", "Tea", "Water"]);
    const filtered = [];
    await run.consumer(async (message) => { filtered.push(message.tags); }, "Coffee || Water", "choosy");
    await run.consumer(async (message, queue) => tally.received(message, queue));
    await tally.consumedAll();
    await waitFor(() => filtered.length >= 20);
    tally.check(filtered.length === 20 && !filtered.includes("Tea"), `${filtered.length} messages passed the filter`);
  },

  async delay(run, tally) {
    const producer = await run.producer();
    await send(producer, run, tally, 1);
    const arrived = new Map();
    await run.consumer(async (message, queue) => {
      arrived.set(message.body.toString(), Date.now());
      tally.received(message, queue);
    });
    await tally.consumedAll();
    const sent = new Map();
    for (let count = 0; count < 5; count++) {
      const [text, message] = tally.next(run.topic);
      message.delayTimeLevel = 1;
      sent.set(text, Date.now());
      tally.accepted(text, await producer.send(message));
    }
    await tally.consumedAll();
    for (const [text, since] of sent) {
      tally.check(arrived.get(text) - since >= 998, `${text} came after ${arrived.get(text) - since} ms`);
    }
  },

  // The client leaves the delay to the broker, which takes 10 s for the first retry.
  async retry(run, tally) {
    const producer = await run.producer();
    await send(producer, run, tally, 4);
    const tries = new Map();
    await run.consumer(async (message, queue) => {
      const text = message.body.toString();
      tries.set(text, (tries.get(text) ?? 0) + 1);
      if (tries.get(text) === 1) return Consumer.ACTION_RETRY;
      tally.received(message, queue);
    });
    await tally.consumedAll();
    tally.check([...tries.values()].every((count) => count >= 2), `tries ${[...tries.values()]}`);
  },
};

async function play(nameServer, name) {
  const run = new Run(nameServer, name);
  const tally = new Tally(name);
  const start = Date.now();
  try {
    await createTopic(nameServer.split(";")[0], run.topic);
    await scenarios[name](run, tally);
  } catch (failure) {
    tally.check(false, String(failure));
  }
  await run.close().catch((failure) => tally.check(false, `close: ${failure}`));
  const counts = tally.close();
  const failed = tally.failures.length > 0;
  const reasons = failed ? `: ${tally.failures.slice(0, 5).join("; ")}` : "";
  console.log(`${failed ? "FAIL" : "PASS"} ${name} client=ali-ons ${counts} millis=${Date.now() - start}${reasons}`);
  return !failed;
}

const [nameServer, ...chosen] = process.argv.slice(2);
if (!nameServer || chosen.some((name) => !(name in scenarios))) {
  console.error(`usage: node client.mjs <name server> [${Object.keys(scenarios).join("|")}]...`);
  process.exit(2);
}
let held = true;
for (const name of chosen.length ? chosen : Object.keys(scenarios)) held = (await play(nameServer, name)) && held;
process.exit(held ? 0 : 1);
