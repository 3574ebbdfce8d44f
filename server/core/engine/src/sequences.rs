//! Sequences: requests that belong together, kept in order and on one lane, and what is remembered between them.
//!
//! Pure bookkeeping of one model's sequences. It may not know queues, sockets or how a batch is run; lanes are
//! numbers, time is an argument.
//!
//! Promises:
//! * the requests of a sequence run one at a time, in the order they came;
//! * a sequence stays on its lane, and with the direct strategy in its row, from its first request to its last;
//! * what one sequence remembers is never seen by another.
//!
//! Source: the sequence batcher of Triton ("direct", "oldest", control inputs, implicit state), with sequences that
//! only we remember surviving the end of their worker.

use std::collections::{HashMap, HashSet};

use kingpole_values::{Code, Error, Result, Sequence, SequenceId, Shape, Tensor};

use crate::sequence_policy::{SequencePolicy, Strategy};

/// The sequences of one model.
#[derive(Debug, Default)]
pub(crate) struct Sequences {
    live: HashMap<SequenceId, Live>,
    /// For each lane, who has which of its places.
    places: Vec<Vec<Option<SequenceId>>>,
}

#[derive(Debug)]
struct Live {
    place: Option<Place>,
    states: Vec<Tensor>,
    last_us: u64,
    /// Requests admitted and not yet answered.
    held: u32,
    running: bool,
    /// Its last request was taken in: only a new start may follow.
    closing: bool,
    /// Starts that wait: what comes after one goes on with it, whatever became of what came before.
    starts: u32,
    /// Why what came before cannot go on.
    broken: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    lane: usize,
    row: u32,
}

/// A request chosen for a batch: its position among those offered, and its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chosen {
    pub position: usize,
    pub row: u32,
}

/// How a request of a sequence ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It ran; the model gave these states.
    Done(Vec<Tensor>),
    /// It ran and failed, or may have.
    Failed,
    /// It was in a batch that was not begun.
    NotRun,
    /// It never left the queue.
    Dropped,
}

impl Sequences {
    /// Take a request in, if its sequence can go on with it.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a sequence that was not started or has ended; `FAILED_PRECONDITION` for one that was lost.
    pub fn admit(
        &mut self,
        policy: &SequencePolicy,
        model: &str,
        sequence: Option<&Sequence>,
        now_us: u64,
    ) -> Result<()> {
        let Some(sequence) = sequence else {
            return Err(Error::invalid(format!(
                "inference request to model '{model}' must specify a non-zero or non-empty correlation ID: \
                 it keeps sequences, so that a request says which it belongs to (sequence_id)"
            )));
        };
        self.forget_idle(policy, now_us);
        let id = &sequence.id;
        let live = self.live.get_mut(id);
        match live {
            Some(live) if sequence.start || live.starts > 0 || live.broken.is_none() => {
                if live.closing && !sequence.start {
                    return Err(not_started(model, id));
                }
                live.closing = sequence.end;
                live.starts += u32::from(sequence.start);
                live.held += 1;
                live.last_us = now_us;
            }
            Some(_) => return Err(self.cannot_go_on(model, id)),
            None if sequence.start => {
                let live = Live { held: 1, starts: 1, closing: sequence.end, ..Live::new(policy, now_us) };
                self.live.insert(id.clone(), live);
            }
            None => return Err(not_started(model, id)),
        }
        Ok(())
    }

    /// Why a sequence cannot go on.
    pub fn cannot_go_on(&self, model: &str, id: &SequenceId) -> Error {
        let why = self.live.get(id).and_then(|live| live.broken).unwrap_or("it has ended");
        let message = format!("sequence {} of model '{model}' cannot go on: {why}; start it again", show(id));
        Error::new(Code::FailedPrecondition, message)
    }

    /// Those of the offered requests that follow on what was lost, up to the next start of their sequence.
    pub fn doomed<'a>(&self, offered: impl Iterator<Item = (u64, &'a Sequence)>) -> Vec<u64> {
        if !self.live.values().any(|live| live.broken.is_some()) {
            return Vec::new();
        }
        let mut started: HashSet<&SequenceId> = HashSet::new();
        let mut doomed = Vec::new();
        for (number, sequence) in offered {
            let broken = self.live.get(&sequence.id).is_none_or(|live| live.broken.is_some());
            if sequence.start {
                started.insert(&sequence.id);
            } else if broken && !started.contains(&sequence.id) {
                doomed.push(number);
            }
        }
        doomed
    }

    /// Choose requests for a batch on a lane: at most one of each sequence, oldest first, none of a sequence that is
    /// running or lives elsewhere.
    pub fn choose<'a>(
        &mut self,
        policy: &SequencePolicy,
        (lane, lanes): (usize, usize),
        max_rows: u32,
        offered: impl Iterator<Item = &'a Sequence>,
    ) -> Vec<Chosen> {
        let room = match policy.strategy {
            Strategy::Direct => max_rows.max(1),
            Strategy::Oldest { max_candidates } => max_candidates.max(1),
        };
        self.places.resize_with(self.places.len().max(lanes), Vec::new);
        self.places[lane].resize(room as usize, None);
        let mut chosen: Vec<Chosen> = Vec::new();
        let mut passed: HashSet<&SequenceId> = HashSet::new();
        let mut shapes: Option<Vec<Shape>> = None;
        for (position, sequence) in offered.enumerate() {
            if chosen.len() >= max_rows.max(1) as usize {
                break;
            }
            // The first request of a sequence stands for it; later ones wait behind it.
            if !passed.insert(&sequence.id) {
                continue;
            }
            let Some(live) = self.live.get_mut(&sequence.id) else { continue };
            if live.running || live.place.is_some_and(|place| place.lane != lane) {
                continue;
            }
            if live.place.is_none() {
                let Some(row) = self.places[lane].iter().position(Option::is_none) else { continue };
                self.places[lane][row] = Some(sequence.id.clone());
                live.place = Some(Place { lane, row: u32::try_from(row).unwrap_or(u32::MAX) });
            }
            if sequence.start {
                live.states = policy.states.iter().map(|state| state.initial.clone()).collect();
            }
            // States of other shapes cannot be joined; they go with the next batch.
            let own: Vec<Shape> = live.states.iter().map(|state| state.shape.clone()).collect();
            if *shapes.get_or_insert_with(|| own.clone()) != own {
                continue;
            }
            let next = u32::try_from(chosen.len()).unwrap_or(u32::MAX);
            let row = match live.place {
                Some(place) if policy.has_rows_of_their_own() => place.row,
                _ => next,
            };
            chosen.push(Chosen { position, row });
        }
        chosen.sort_unstable_by_key(|chosen| chosen.row);
        chosen
    }

    /// A chosen request has left with its batch.
    pub fn begin(&mut self, sequence: &Sequence) {
        if let Some(live) = self.live.get_mut(&sequence.id) {
            live.running = true;
            if sequence.start {
                live.starts = live.starts.saturating_sub(1);
                live.broken = None;
            }
        }
    }

    /// What the model is to be told: the states of a sequence.
    pub fn states(&self, id: &SequenceId) -> &[Tensor] {
        self.live.get(id).map_or(&[], |live| &live.states)
    }

    /// A request was answered, in whichever way.
    pub fn end(&mut self, policy: &SequencePolicy, sequence: &Sequence, outcome: Outcome, now_us: u64) {
        let Some(live) = self.live.get_mut(&sequence.id) else { return };
        live.held = live.held.saturating_sub(1);
        live.last_us = live.last_us.max(now_us);
        let mut over = false;
        match outcome {
            Outcome::Done(states) => {
                live.running = false;
                live.states = states;
                over = sequence.end && live.held == 0;
            }
            Outcome::Failed => {
                live.running = false;
                if !policy.remembers() {
                    live.broken = Some("the model failed in the middle of it");
                } else if sequence.start {
                    live.broken = Some("its first request failed");
                }
            }
            Outcome::NotRun => {
                live.running = false;
                if sequence.start {
                    live.broken = Some("its first request could not be given to the model");
                }
            }
            Outcome::Dropped if sequence.start => {
                live.starts = live.starts.saturating_sub(1);
                live.broken = Some("its first request was cancelled or its time had passed before it ran");
            }
            Outcome::Dropped => {}
        }
        if over {
            self.forget(&sequence.id);
        } else if sequence.end {
            // It did not run, so that it may be sent again.
            live.closing = live.closing && live.held > 0;
        }
    }

    /// A request goes back to wait, as the lane that ran it is gone.
    pub fn wait_again(&mut self, sequence: &Sequence) {
        if let Some(live) = self.live.get_mut(&sequence.id) {
            live.running = false;
            live.starts += u32::from(sequence.start);
        }
    }

    /// A lane is gone, and with it what its model remembered.
    pub fn lose_lane(&mut self, policy: &SequencePolicy, lane: usize) {
        for live in self.live.values_mut().filter(|live| live.place.is_some_and(|place| place.lane == lane)) {
            // Any lane will do from here on, for what goes on or for what starts again.
            live.place = None;
            if !policy.remembers() {
                live.broken = Some("its worker has ended, and with it what the model remembered");
            }
        }
        if let Some(places) = self.places.get_mut(lane) {
            places.fill(None);
        }
    }

    /// When a place will be free because its sequence has been idle for too long.
    pub fn next_idle_us(&self, policy: &SequencePolicy) -> Option<u64> {
        let idle = self.live.values().filter(|live| live.held == 0 && live.place.is_some());
        idle.map(|live| live.last_us.saturating_add(policy.max_idle_us)).min()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// Forget the sequences that have been idle for too long.
    pub fn forget_idle(&mut self, policy: &SequencePolicy, now_us: u64) {
        let idle = |live: &Live| live.held == 0 && live.last_us.saturating_add(policy.max_idle_us) <= now_us;
        if !self.live.values().any(idle) {
            return;
        }
        let gone: Vec<SequenceId> =
            self.live.iter().filter(|(_, live)| idle(live)).map(|(id, _)| id.clone()).collect();
        for id in gone {
            self.forget(&id);
        }
    }

    fn forget(&mut self, id: &SequenceId) {
        let Some(live) = self.live.remove(id) else { return };
        if let Some(place) = live.place
            && let Some(held) =
                self.places.get_mut(place.lane).and_then(|rows| rows.get_mut(place.row as usize))
        {
            *held = None;
        }
    }
}

impl Live {
    fn new(policy: &SequencePolicy, now_us: u64) -> Self {
        let states = policy.states.iter().map(|state| state.initial.clone()).collect();
        Self {
            place: None,
            states,
            last_us: now_us,
            held: 0,
            running: false,
            closing: false,
            starts: 0,
            broken: None,
        }
    }
}

fn not_started(model: &str, id: &SequenceId) -> Error {
    Error::invalid(format!(
        "inference request for sequence {} to model '{model}' must specify the START flag on the first request of the \
         sequence",
        show(id)
    ))
}

pub(crate) fn show(id: &SequenceId) -> String {
    match id {
        SequenceId::Number(number) => number.to_string(),
        SequenceId::Text(text) => format!("'{}'", text.chars().take(64).collect::<String>().escape_debug()),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kingpole_values::{Datatype, Shape};

    use super::*;
    use crate::sequence_policy::{Control, ControlKind, State};

    fn policy(strategy: Strategy) -> SequencePolicy {
        let ready = Control {
            name: "READY".into(),
            kind: ControlKind::Ready,
            datatype: Datatype::Bool,
            shape: Shape::new(&[-1, 1]),
            values: [Bytes::from_static(&[0]), Bytes::from_static(&[1])],
        };
        SequencePolicy { strategy, max_idle_us: 1000, controls: vec![ready], states: vec![] }
    }

    fn with_state(value: u8) -> SequencePolicy {
        let initial = state(value);
        let state = State { input: "s".into(), output: "s2".into(), datatype: Datatype::Uint8, initial };
        SequencePolicy { states: vec![state], ..policy(Strategy::Oldest { max_candidates: 4 }) }
    }

    fn state(value: u8) -> Tensor {
        Tensor {
            name: "s".into(),
            datatype: Datatype::Uint8,
            shape: Shape::new(&[1]),
            data: Bytes::from(vec![value]),
        }
    }

    fn step(id: u64, start: bool, end: bool) -> Sequence {
        Sequence { id: SequenceId::Number(id), start, end }
    }

    fn admit(sequences: &mut Sequences, policy: &SequencePolicy, sequence: &Sequence) -> Result<()> {
        sequences.admit(policy, "m", Some(sequence), 0)
    }

    #[test]
    fn a_sequence_begins_with_start_and_is_gone_after_end() {
        let (mut sequences, policy) = (Sequences::default(), policy(Strategy::Direct));
        let error = admit(&mut sequences, &policy, &step(1, false, false)).unwrap_err();
        assert!(error.message.contains("must specify the START flag"), "{error}");
        assert!(sequences.admit(&policy, "m", None, 0).unwrap_err().message.contains("correlation ID"));
        for (start, end) in [(true, false), (false, false), (false, true)] {
            let sequence = step(1, start, end);
            admit(&mut sequences, &policy, &sequence).unwrap();
            assert_eq!(sequences.choose(&policy, (0, 1), 4, [&sequence].into_iter()).len(), 1);
            sequences.begin(&sequence);
            sequences.end(&policy, &sequence, Outcome::Done(vec![]), 1);
        }
        assert!(sequences.is_empty());
        assert!(admit(&mut sequences, &policy, &step(1, false, false)).is_err());
    }

    #[test]
    fn requests_of_one_sequence_never_share_a_batch_and_sequences_keep_their_rows() {
        let (mut sequences, policy) = (Sequences::default(), policy(Strategy::Direct));
        let offered =
            [step(7, true, false), step(7, false, false), step(8, true, false), step(9, true, false)];
        for sequence in &offered {
            admit(&mut sequences, &policy, sequence).unwrap();
        }
        let chosen = sequences.choose(&policy, (0, 1), 2, offered.iter());
        assert_eq!(chosen, [Chosen { position: 0, row: 0 }, Chosen { position: 2, row: 1 }]);
        for position in [0, 2] {
            sequences.begin(&offered[position]);
        }
        assert!(
            sequences.choose(&policy, (0, 1), 2, offered[1..].iter()).is_empty(),
            "both run, 9 has no place"
        );
        sequences.end(&policy, &offered[2], Outcome::Done(vec![]), 1);
        let next = step(8, false, true);
        admit(&mut sequences, &policy, &next).unwrap();
        let chosen = sequences.choose(&policy, (0, 1), 2, [&next].into_iter());
        assert_eq!(chosen, [Chosen { position: 0, row: 1 }], "its row, though the other is empty");
    }

    #[test]
    fn a_sequence_stays_on_its_lane() {
        let (mut sequences, policy) = (Sequences::default(), policy(Strategy::Oldest { max_candidates: 2 }));
        let first = step(1, true, false);
        admit(&mut sequences, &policy, &first).unwrap();
        assert_eq!(sequences.choose(&policy, (1, 2), 4, [&first].into_iter()).len(), 1);
        assert!(sequences.choose(&policy, (0, 2), 4, [&first].into_iter()).is_empty());
    }

    #[test]
    fn what_is_remembered_comes_back_and_a_start_forgets_it() {
        let (mut sequences, policy) = (Sequences::default(), with_state(5));
        let first = step(1, true, false);
        admit(&mut sequences, &policy, &first).unwrap();
        sequences.choose(&policy, (0, 1), 4, [&first].into_iter());
        sequences.begin(&first);
        assert_eq!(sequences.states(&first.id), [state(5)]);
        sequences.end(&policy, &first, Outcome::Done(vec![state(6)]), 1);
        assert_eq!(sequences.states(&first.id), [state(6)]);
        sequences.lose_lane(&policy, 0);
        let second = step(1, false, false);
        admit(&mut sequences, &policy, &second).unwrap();
        assert_eq!(
            sequences.choose(&policy, (1, 2), 4, [&second].into_iter()).len(),
            1,
            "it may go on anywhere"
        );
        assert_eq!(sequences.states(&first.id), [state(6)]);
        sequences.end(&policy, &second, Outcome::Failed, 1);
        assert_eq!(sequences.states(&first.id), [state(6)], "a failed request changes nothing");
        admit(&mut sequences, &policy, &first).unwrap();
        sequences.choose(&policy, (1, 2), 4, [&first].into_iter());
        sequences.begin(&first);
        assert_eq!(sequences.states(&first.id), [state(5)]);
    }

    #[test]
    fn what_only_the_model_remembered_is_lost_with_its_lane() {
        let (mut sequences, policy) = (Sequences::default(), policy(Strategy::Direct));
        let first = step(1, true, false);
        admit(&mut sequences, &policy, &first).unwrap();
        sequences.choose(&policy, (0, 1), 4, [&first].into_iter());
        sequences.begin(&first);
        sequences.end(&policy, &first, Outcome::Done(vec![]), 1);
        sequences.lose_lane(&policy, 0);
        let error = admit(&mut sequences, &policy, &step(1, false, false)).unwrap_err();
        assert_eq!(error.code, Code::FailedPrecondition);
        assert!(error.message.contains("start it again"), "{error}");
        admit(&mut sequences, &policy, &first).unwrap();
        admit(&mut sequences, &policy, &step(1, false, false)).unwrap();
    }

    #[test]
    fn an_idle_sequence_gives_its_place_away() {
        let (mut sequences, policy) = (Sequences::default(), policy(Strategy::Oldest { max_candidates: 1 }));
        let (first, second) = (step(1, true, false), step(2, true, false));
        admit(&mut sequences, &policy, &first).unwrap();
        sequences.choose(&policy, (0, 1), 4, [&first].into_iter());
        sequences.begin(&first);
        sequences.end(&policy, &first, Outcome::Done(vec![]), 10);
        admit(&mut sequences, &policy, &second).unwrap();
        assert!(sequences.choose(&policy, (0, 1), 4, [&second].into_iter()).is_empty());
        assert_eq!(sequences.next_idle_us(&policy), Some(1010));
        sequences.forget_idle(&policy, 1010);
        assert_eq!(sequences.choose(&policy, (0, 1), 4, [&second].into_iter()).len(), 1);
        let error = sequences.admit(&policy, "m", Some(&step(1, false, false)), 1011).unwrap_err();
        assert_eq!(error.code, Code::InvalidArgument);
    }

    #[test]
    fn a_sequence_whose_first_request_never_ran_cannot_go_on() {
        let (mut sequences, policy) = (Sequences::default(), with_state(0));
        let first = step(1, true, false);
        admit(&mut sequences, &policy, &first).unwrap();
        sequences.end(&policy, &first, Outcome::Dropped, 1);
        let error = admit(&mut sequences, &policy, &step(1, false, false)).unwrap_err();
        assert!(error.message.contains("first request"), "{error}");
    }

    /// Admits steps of one sequence, runs the first `ran` of them, and gives which of the others are doomed.
    fn doomed_after(
        sequences: &mut Sequences,
        policy: &SequencePolicy,
        steps: &[Sequence],
        ended: impl FnOnce(&mut Sequences),
    ) -> Vec<u64> {
        for step in steps {
            admit(sequences, policy, step).unwrap();
        }
        sequences.choose(policy, (0, 1), 4, steps.iter());
        sequences.begin(&steps[0]);
        ended(sequences);
        sequences.doomed((1..).zip(&steps[1..]))
    }

    #[test]
    fn steps_that_wait_behind_what_was_lost_never_run_until_a_start() {
        let steps =
            [step(1, true, false), step(1, false, false), step(1, true, false), step(1, false, false)];
        let direct = policy(Strategy::Direct);
        let mut sequences = Sequences::default();
        let doomed = doomed_after(&mut sequences, &direct, &steps, |sequences| {
            sequences.end(&direct, &steps[0], Outcome::Failed, 1);
        });
        assert_eq!(doomed, [1]);
        let mut sequences = Sequences::default();
        let doomed =
            doomed_after(&mut sequences, &direct, &steps, |sequences| sequences.lose_lane(&direct, 0));
        assert_eq!(doomed, [1]);
        let mut sequences = Sequences::default();
        let remembering = with_state(0);
        let doomed = doomed_after(&mut sequences, &remembering, &steps, |sequences| {
            sequences.end(&remembering, &steps[0], Outcome::Done(vec![state(9)]), 1);
            sequences.end(&remembering, &steps[2], Outcome::Dropped, 1);
        });
        assert_eq!(doomed, [1], "a start that never ran leaves nothing to go on from");
    }

    #[test]
    fn a_start_that_ran_mends_what_a_step_before_it_broke() {
        let (mut sequences, policy) = (Sequences::default(), policy(Strategy::Direct));
        let (first, again) = (step(1, true, false), step(1, true, false));
        admit(&mut sequences, &policy, &first).unwrap();
        sequences.choose(&policy, (0, 1), 4, [&first].into_iter());
        sequences.begin(&first);
        admit(&mut sequences, &policy, &again).unwrap();
        sequences.end(&policy, &first, Outcome::Failed, 1);
        sequences.choose(&policy, (0, 1), 4, [&again].into_iter());
        sequences.begin(&again);
        sequences.end(&policy, &again, Outcome::Done(vec![]), 2);
        admit(&mut sequences, &policy, &step(1, false, false)).unwrap();
    }

    #[test]
    fn an_end_that_did_not_run_may_be_sent_again() {
        let (mut sequences, policy) = (Sequences::default(), with_state(0));
        let (first, last) = (step(1, true, false), step(1, false, true));
        admit(&mut sequences, &policy, &first).unwrap();
        sequences.choose(&policy, (0, 1), 4, [&first].into_iter());
        sequences.begin(&first);
        sequences.end(&policy, &first, Outcome::Done(vec![state(3)]), 1);
        for _ in 0..2 {
            admit(&mut sequences, &policy, &last).unwrap();
            sequences.end(&policy, &last, Outcome::Dropped, 2);
        }
        assert_eq!(sequences.states(&last.id), [state(3)]);
    }
}
