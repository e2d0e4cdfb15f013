//! The one verdict of life and death over DPD (RFC 3706), L2TP Hello, LCP echo and every other authenticated packet.
//!
//! No layer decides by itself. After an interval of silence the peer is asked by all means at once, again and again; it is dead
//! when nothing authenticated came for the whole timeout. Only a layer whose questions stay unanswered while something beside
//! it lives is gone by itself.

use std::time::{Duration, Instant};

/// Questions between the first unanswered one and the verdict: a lossy path gets an answer through in one of them.
const QUESTIONS: u32 = 8;
/// The shortest pause between two questions.
const MIN_PAUSE: Duration = Duration::from_secs(1);

/// Where an authenticated packet came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// PPP spoke.
    Ppp,
    /// IKE or the L2TP control connection.
    Beside,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing.
    Alive,
    /// Ask by all means.
    Ask,
    /// Whoever was asked is dead.
    Dead,
}

/// Signs of life of one peer.
#[derive(Debug)]
pub(super) struct Life {
    interval: Duration,
    timeout: Duration,
    /// The last authenticated packet.
    last: Instant,
    /// The last one that did not come from PPP.
    beside: Instant,
    /// The first and the last question since.
    asked: Option<[Instant; 2]>,
    /// When the first of the LCP echoes in a row was lost.
    echo_lost: Option<Instant>,
}

impl Life {
    /// Of a peer that was heard just now: it is asked after `interval` of silence and dead after `timeout`.
    pub(super) fn new(interval: Duration, timeout: Duration, now: Instant) -> Self {
        Self { interval, timeout, last: now, beside: now, asked: None, echo_lost: None }
    }

    /// When the last authenticated packet came.
    pub(super) fn last(&self) -> Instant {
        self.last
    }

    /// An authenticated packet came.
    pub(super) fn heard(&mut self, now: Instant, source: Source) {
        self.last = now;
        self.asked = None;
        match source {
            Source::Ppp => self.echo_lost = None,
            Source::Beside => self.beside = now,
        }
    }

    /// When [`Life::handle_timeout`] is due.
    pub(super) fn poll_timeout(&self) -> Instant {
        match self.asked {
            None => self.last + self.interval,
            Some([first, last]) => (last + self.pause()).min(first + self.patience()),
        }
    }

    /// Does what is due.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Verdict {
        if self.poll_timeout() > now {
            return Verdict::Alive;
        }
        match self.asked {
            // Counted from the question: a process that was not running for a while asks before it judges.
            Some([first, _]) if first + self.patience() <= now => Verdict::Dead,
            asked => {
                self.asked = Some([asked.map_or(now, |[first, _]| first), now]);
                Verdict::Ask
            }
        }
    }

    /// An LCP echo was lost, the `count`th in a row; `suspicious` are so many that the link may be dead. PPP is, once it has
    /// been silent for twice as long as a peer that was asked may be although something beside it was heard since: its echoes
    /// are all that is asked, so a lossy path needs more of them.
    pub(super) fn handle_echo_lost(&mut self, now: Instant, count: u32, suspicious: u32) -> Verdict {
        if count <= 1 {
            self.echo_lost = None;
        }
        let since = *self.echo_lost.get_or_insert(now);
        if count < suspicious {
            Verdict::Alive
        } else if self.beside > since && since + 2 * self.patience() <= now {
            Verdict::Dead
        } else {
            Verdict::Ask
        }
    }

    /// How long a peer that was asked may be silent.
    fn patience(&self) -> Duration {
        self.timeout.saturating_sub(self.interval)
    }

    fn pause(&self) -> Duration {
        (self.patience() / QUESTIONS).max(MIN_PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn life(now: Instant) -> Life {
        Life::new(10 * SECOND, 30 * SECOND, now)
    }

    /// Lets the time of `life` pass until its verdict, and tells at which seconds it asked and when it gave up.
    fn verdict(life: &mut Life, start: Instant) -> (Vec<f64>, f64) {
        let mut questions = Vec::new();
        loop {
            let now = life.poll_timeout();
            let after = now.saturating_duration_since(start).as_secs_f64();
            match life.handle_timeout(now) {
                Verdict::Ask => questions.push(after),
                Verdict::Dead => return (questions, after),
                Verdict::Alive => panic!("woken at {after} s for nothing"),
            }
        }
    }

    #[test]
    fn a_silent_peer_is_asked_after_the_interval_and_dead_after_the_timeout() {
        let start = Instant::now();
        let (questions, dead) = verdict(&mut life(start), start);
        assert_eq!(questions, [10.0, 12.5, 15.0, 17.5, 20.0, 22.5, 25.0, 27.5]);
        assert_eq!(dead, 30.0);
    }

    #[test]
    fn every_sign_of_life_begins_the_time_anew() {
        for source in [Source::Ppp, Source::Beside] {
            let start = Instant::now();
            let mut life = life(start);
            assert_eq!(life.handle_timeout(start + 29 * SECOND), Verdict::Ask);
            life.heard(start + 29 * SECOND, source);
            assert_eq!(life.handle_timeout(start + 38 * SECOND), Verdict::Alive);
            assert_eq!(verdict(&mut life, start).1, 59.0);
        }
    }

    #[test]
    fn a_process_that_slept_asks_before_it_judges() {
        let start = Instant::now();
        let mut life = life(start);
        assert_eq!(life.handle_timeout(start + 3_600 * SECOND), Verdict::Ask);
        assert_eq!(verdict(&mut life, start).1, 3_620.0);
    }

    #[test]
    fn lost_echoes_alone_are_a_suspicion_and_no_verdict() {
        let start = Instant::now();
        let mut life = life(start);
        let verdicts: Vec<_> =
            (1..=20).map(|count| life.handle_echo_lost(start + count * 3 * SECOND, count, 3)).collect();
        assert_eq!(verdicts[..2], [Verdict::Alive; 2]);
        assert_eq!(verdicts[2..], [Verdict::Ask; 18]);
    }

    #[test]
    fn echoes_that_stay_lost_while_something_beside_ppp_lives_are_the_end_of_ppp() {
        let start = Instant::now();
        let mut life = life(start);
        let mut verdicts = Vec::new();
        for count in 1..=15 {
            let now = start + count * 3 * SECOND;
            verdicts.push(life.handle_echo_lost(now, count, 3));
            life.heard(now, Source::Beside);
        }
        assert_eq!(verdicts[2..14], [Verdict::Ask; 12]);
        assert_eq!(verdicts[14], Verdict::Dead);
    }

    #[test]
    fn one_word_of_ppp_ends_the_suspicion() {
        let start = Instant::now();
        let mut life = life(start);
        life.handle_echo_lost(start, 3, 3);
        life.heard(start + SECOND, Source::Ppp);
        life.heard(start + 2 * SECOND, Source::Beside);
        assert_eq!(life.handle_echo_lost(start + 60 * SECOND, 3, 3), Verdict::Ask);
    }
}
