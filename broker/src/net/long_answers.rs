//! Questions whose answers may list a lot, or need a lot of reading. Few are answered at once, so that their memory has a
//! limit, and one of a connection, so that none of them keeps the others from their turn. Nobody has a place while its
//! client still has to take earlier answers.

use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

use super::connection::{ANSWER_BYTES_MAX, Connection};
use crate::limits::{LONG_ANSWERS_MAX, LONG_QUESTIONS_OF_CONNECTION_MAX};
use crate::mutant::Mutant;
use crate::remoting::Room;
use crate::remoting::codes::{request, response};
use crate::request::Failure;

/// How long a question waits for its turn, within the three seconds that clients give it.
const TURN_TIMEOUT: Duration = Duration::from_millis(2500);

/// True for questions whose answers may list a lot, or need a lot of reading.
fn is_long_question(code: i32) -> bool {
    matches!(
        code,
        request::QUERY_MESSAGE
            | request::GET_BROKER_RUNTIME_INFO
            | request::GET_ALL_SUBSCRIPTIONGROUP_CONFIG
            | request::GET_TOPIC_STATS_INFO
            | request::GET_CONSUMER_CONNECTION_LIST
            | request::GET_CONSUME_STATS
            | request::INVOKE_BROKER_TO_RESET_OFFSET
            | request::QUERY_TOPIC_CONSUME_BY_WHO
            | request::QUERY_TOPICS_BY_CONSUMER
            | request::GET_ALL_TOPIC_LIST_FROM_NAMESERVER
    )
}

/// The places of long questions that are answered at once.
pub(crate) struct LongAnswers {
    places: Semaphore,
}

impl Default for LongAnswers {
    fn default() -> Self {
        Self { places: Semaphore::new(LONG_ANSWERS_MAX) }
    }
}

/// The long questions of one connection.
pub(crate) struct LongQuestions {
    /// Held by each of them.
    all: Semaphore,
    /// Held by the one that has its turn, or is the next.
    turn: Semaphore,
}

impl Default for LongQuestions {
    fn default() -> Self {
        Self { all: Semaphore::new(LONG_QUESTIONS_OF_CONNECTION_MAX), turn: Semaphore::new(1) }
    }
}

/// A long question's turn, until it is dropped.
pub(crate) struct Turn<'a> {
    _of_connection: [SemaphorePermit<'a>; 2],
    _place: SemaphorePermit<'a>,
    /// For its answer, or the begin of it.
    _room: Room,
}

fn busy(what: &str) -> Failure {
    Failure::refused(response::SYSTEM_BUSY, what)
}

impl LongAnswers {
    /// A question's turn to be answered, if its answer may be long.
    ///
    /// # Errors
    /// It had none for as long as its client waits, or too many of the connection wait for theirs.
    pub(crate) async fn turn<'a>(
        &'a self,
        connection: &'a Connection,
        code: i32,
    ) -> Result<Option<Turn<'a>>, Failure> {
        if !is_long_question(code) {
            return Ok(None);
        }
        let own = connection.long_questions();
        let all = own.all.try_acquire();
        let all = all.map_err(|_| busy("too many long questions on one connection"))?;
        let turn = async {
            let turn = match Mutant::LongQuestionsOfOne.is_active() {
                true => own.all.acquire().await,
                false => own.turn.acquire().await,
            };
            let of_connection = [all, turn.ok()?];
            let share = connection.out().share();
            loop {
                if !Mutant::LongPlaceBeforeRoom.is_active() {
                    share.ready_for(ANSWER_BYTES_MAX).await;
                }
                let place = self.places.acquire().await.ok()?;
                if Mutant::LongPlaceBeforeRoom.is_active() {
                    share.ready_for(ANSWER_BYTES_MAX).await;
                }
                // What there was may be gone: the next one has the place meanwhile.
                if let Some(room) = share.try_reserve(ANSWER_BYTES_MAX) {
                    return Some(Turn {
                        _of_connection: of_connection,
                        _place: place,
                        _room: room,
                    });
                }
            }
        };
        let turn = tokio::time::timeout(TURN_TIMEOUT, turn).await.ok().flatten();
        turn.map(Some).ok_or_else(|| busy("too many long answers at once"))
    }
}

/// Room for an answer, once the client has taken enough of earlier ones.
///
/// # Errors
/// It has not, for as long as clients wait for an answer.
pub(crate) async fn room(connection: &Connection, bytes: usize) -> Result<Room, Failure> {
    let reserving = connection.out().share().reserve(bytes);
    let room = tokio::time::timeout(TURN_TIMEOUT, reserving).await;
    room.map_err(|_| busy("earlier answers are not taken"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::FutureExt as _;

    use super::super::connection::Budgets;
    use super::*;
    use crate::settings::BrokerConfig;

    const CODE: i32 = request::QUERY_MESSAGE;

    fn connections() -> Vec<Arc<Connection>> {
        let budgets = Budgets::new(&BrokerConfig::default());
        let new = |number| Connection::new(number, ([127, 0, 0, 1], 1).into(), &budgets).0;
        (1..10).map(new).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_take_its_answers_keeps_nobody_from_a_turn_and_is_refused_in_time() {
        let (answers, connections) = (LongAnswers::default(), connections());
        for slow in &connections[..5] {
            slow.out().share().take(1);
        }
        let mut waiting: Vec<_> =
            connections[..5].iter().map(|slow| Box::pin(answers.turn(slow, CODE))).collect();
        assert!(waiting.iter_mut().all(|turn| turn.now_or_never().is_none()));
        let others: Vec<_> = connections[5..]
            .iter()
            .map(|other| answers.turn(other, CODE).now_or_never().expect("a place").is_ok())
            .collect();
        assert_eq!(others, [true; 4]);
        connections[0].out().share().give_back(1);
        let first = waiting.remove(0).await.map(|turn| turn.is_some());
        assert_eq!(first, Ok(true), "its client has taken all");
        for turn in waiting {
            let Err(Failure::Refused { code, .. }) = turn.await else { panic!("it has a turn") };
            assert_eq!(code, response::SYSTEM_BUSY);
        }
        assert!(room(&connections[1], ANSWER_BYTES_MAX).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_has_one_turn_at_a_time_however_much_it_asks() {
        let (answers, connections) = (LongAnswers::default(), connections());
        let (many, others) = connections.split_first().expect("some");
        let mut asked: Vec<_> = (0..LONG_QUESTIONS_OF_CONNECTION_MAX)
            .map(|_| Box::pin(answers.turn(many, CODE)))
            .collect();
        let mut turns: Vec<_> = asked.iter_mut().filter_map(|turn| turn.now_or_never()).collect();
        assert_eq!(turns.len(), 1);
        let more = answers.turn(many, CODE).now_or_never().expect("no wait");
        assert!(more.is_err(), "too many wait");
        for other in &others[..LONG_ANSWERS_MAX - 1] {
            turns.push(answers.turn(other, CODE).now_or_never().expect("a place"));
        }
        assert!(answers.turn(&others[5], CODE).now_or_never().is_none(), "all places are taken");
        let short = answers.turn(&others[5], request::GET_MAX_OFFSET).now_or_never();
        assert!(short.expect("no wait").is_ok_and(|turn| turn.is_none()));
        turns.clear();
        let next = asked.remove(1).await;
        assert!(next.is_ok_and(|turn| turn.is_some()), "in their order");
    }
}
