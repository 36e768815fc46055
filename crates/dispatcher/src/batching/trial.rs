//! One comparison: what requests are answered alone, and what together with others.
//!
//! Reads answers, hands back what to run next and what was found. A difference counts only where it comes again and the
//! row alone does not differ from itself: a model may be random, or may have changed meanwhile.
//! Knows nothing of where runs take place.

use inferd_scheduler::ShapeKey;
use inferd_types::Tensor;
use inferd_types::compare::{Difference, Tolerance, difference};
use smallvec::SmallVec;

pub(crate) type Tensors = SmallVec<[Tensor; 2]>;

/// A request that was answered.
#[derive(Clone, Debug)]
pub(crate) struct AnsweredRequest {
    pub(crate) inputs: Tensors,
    pub(crate) rows: u32,
    /// How long its padded inputs are.
    pub(crate) length: u64,
    pub(crate) shape: ShapeKey,
    pub(crate) answer: Tensors,
}

impl AnsweredRequest {
    pub(crate) fn bytes(&self) -> usize {
        self.inputs.iter().chain(&self.answer).map(|tensor| tensor.data.len()).sum()
    }
}

/// What was found in the end.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Finding {
    /// So many rows gave together what they gave alone.
    Same(u64),
    /// The same row has another answer each time it runs alone, or the difference did not come again.
    Undecided,
    /// So many rows were compared, and in one request a difference came twice.
    Differs(u64, Change),
}

/// What sharing a run does to an answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    Answer(Difference),
    /// The model can't run so many rows together that it runs alone, and says this.
    Failure(u64, String),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    /// Runs alone what was answered together with others.
    Alone,
    /// Runs together what was answered alone.
    Together,
    /// An answer differed: whether the row alone differs from itself.
    AloneAgain,
    /// It does not: whether it differs together with others once more.
    TogetherAgain,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Trial {
    members: Vec<AnsweredRequest>,
    /// The one whose answer is looked at.
    suspect: usize,
    step: Step,
    /// What the suspect is answered alone.
    lone: Tensors,
    /// The model's error for all of them together.
    failure: Option<String>,
    tolerance: Tolerance,
}

impl Trial {
    /// Of a batch that was answered: runs one of its requests alone.
    pub(crate) fn of_shared(members: Vec<AnsweredRequest>, suspect: usize, tolerance: Tolerance) -> Trial {
        Trial { members, suspect, step: Step::Alone, lone: Tensors::new(), failure: None, tolerance }
    }

    /// Of requests that were answered alone: runs them together.
    pub(crate) fn of_lone(members: Vec<AnsweredRequest>, tolerance: Tolerance) -> Trial {
        Trial { step: Step::Together, ..Trial::of_shared(members, 0, tolerance) }
    }

    /// Who runs together next.
    pub(crate) fn next(&self) -> &[AnsweredRequest] {
        match self.step {
            Step::Alone | Step::AloneAgain => std::slice::from_ref(&self.members[self.suspect]),
            Step::Together | Step::TogetherAgain => &self.members,
        }
    }

    /// Takes what those of [`Trial::next`] were answered, or what the model said instead.
    pub(crate) fn ran(&mut self, answers: Result<Vec<Tensors>, String>) -> Option<Finding> {
        let wanted = self.next().len();
        let answers = answers.and_then(|answers| match answers.len() == wanted {
            true => Ok(answers),
            false => Err("answers are missing".to_owned()),
        });
        match (self.step, answers) {
            (Step::Alone, Ok(mut answers)) => {
                let lone = answers.swap_remove(0);
                if self.changed(self.suspect, &lone, &self.members[self.suspect].answer).is_none() {
                    return Some(Finding::Same(self.rows_of(self.suspect)));
                }
                self.suspects(self.suspect, lone)
            }
            (Step::Together, Ok(answers)) => {
                let differs = |(at, answer): (usize, &Tensors)| {
                    self.changed(at, &self.members[at].answer, answer).map(|_| at)
                };
                match answers.iter().enumerate().find_map(differs) {
                    Some(at) => self.suspects(at, self.members[at].answer.clone()),
                    None => Some(Finding::Same(self.rows())),
                }
            }
            (Step::Together, Err(message)) => {
                self.failure = Some(message);
                self.step = Step::TogetherAgain;
                None
            }
            (Step::AloneAgain, Ok(answers)) => {
                if self.changed(self.suspect, &self.lone, &answers[0]).is_some() {
                    return Some(Finding::Undecided);
                }
                self.step = Step::TogetherAgain;
                None
            }
            (Step::TogetherAgain, Ok(answers)) if self.failure.is_none() => {
                let change = self.changed(self.suspect, &self.lone, &answers[self.suspect]);
                Some(change.map_or(Finding::Undecided, |change| {
                    Finding::Differs(self.compared(), Change::Answer(change))
                }))
            }
            (Step::TogetherAgain, Err(message)) if self.failure.is_some() => {
                Some(Finding::Differs(self.rows(), Change::Failure(self.rows(), message)))
            }
            (Step::Alone | Step::AloneAgain | Step::TogetherAgain, _) => Some(Finding::Undecided),
        }
    }

    fn suspects(&mut self, suspect: usize, lone: Tensors) -> Option<Finding> {
        (self.suspect, self.lone, self.step) = (suspect, lone, Step::AloneAgain);
        None
    }

    fn changed(&self, at: usize, lone: &Tensors, other: &Tensors) -> Option<Difference> {
        difference(lone, other, self.rows_of(at), self.tolerance)
    }

    fn rows_of(&self, at: usize) -> u64 {
        u64::from(self.members[at].rows)
    }

    fn rows(&self) -> u64 {
        self.members.iter().map(|member| u64::from(member.rows)).sum()
    }

    /// Rows whose answers were looked at when the difference was found.
    fn compared(&self) -> u64 {
        self.rows_of(self.suspect)
    }
}

#[cfg(test)]
mod tests {
    use inferd_types::DataType;
    use smallvec::smallvec;

    use super::*;

    fn answer(value: f32) -> Tensors {
        let data = value.to_le_bytes().to_vec();
        smallvec![Tensor::new(DataType::Fp32, smallvec![1, 1], data.into()).unwrap()]
    }

    fn kept(value: f32, answered: f32) -> AnsweredRequest {
        AnsweredRequest {
            inputs: answer(value),
            rows: 1,
            length: 0,
            shape: ShapeKey(0),
            answer: answer(answered),
        }
    }

    fn audit() -> Trial {
        Trial::of_shared(vec![kept(1.0, 10.0), kept(2.0, 20.0)], 1, Tolerance::default())
    }

    fn verification() -> Trial {
        Trial::of_lone(vec![kept(1.0, 10.0), kept(2.0, 20.0), kept(3.0, 30.0)], Tolerance::default())
    }

    fn tell(trial: &mut Trial, answers: &[f32]) -> Option<Finding> {
        assert_eq!(trial.next().len(), answers.len());
        trial.ran(Ok(answers.iter().copied().map(answer).collect()))
    }

    fn size(finding: Option<Finding>) -> Option<f64> {
        match finding {
            Some(Finding::Differs(_, Change::Answer(difference))) => difference.size,
            _ => None,
        }
    }

    #[test]
    fn an_answer_that_is_the_same_alone_ends_an_audit_at_once() {
        assert_eq!(tell(&mut audit(), &[20.0]), Some(Finding::Same(1)));
    }

    #[test]
    fn a_difference_counts_once_it_came_again_and_the_row_does_not_differ_from_itself() {
        let mut trial = audit();
        assert_eq!(tell(&mut trial, &[25.0]), None);
        assert_eq!(tell(&mut trial, &[25.0]), None);
        assert_eq!(size(tell(&mut trial, &[10.0, 20.0])), Some(5.0));
    }

    #[test]
    fn a_random_model_and_one_that_has_changed_meanwhile_are_not_decided() {
        let mut random = audit();
        assert_eq!(tell(&mut random, &[25.0]), None);
        assert_eq!(tell(&mut random, &[26.0]), Some(Finding::Undecided));
        let mut changed = audit();
        tell(&mut changed, &[25.0]);
        tell(&mut changed, &[25.0]);
        assert_eq!(tell(&mut changed, &[10.0, 25.0]), Some(Finding::Undecided));
        assert_eq!(audit().ran(Err("no".into())), Some(Finding::Undecided));
    }

    #[test]
    fn what_was_answered_alone_is_run_together_and_all_of_it_is_compared() {
        assert_eq!(tell(&mut verification(), &[10.0, 20.0, 30.0]), Some(Finding::Same(3)));
        let mut trial = verification();
        assert_eq!(tell(&mut trial, &[10.0, 20.0, 33.0]), None);
        assert_eq!(tell(&mut trial, &[30.0]), None);
        assert_eq!(size(tell(&mut trial, &[10.0, 20.0, 33.0])), Some(3.0));
    }

    #[test]
    fn rows_that_the_model_twice_can_not_run_together_are_a_difference() {
        let mut trial = verification();
        assert_eq!(trial.ran(Err("one row only".into())), None);
        let found = trial.ran(Err("one row only".into()));
        assert_eq!(found, Some(Finding::Differs(3, Change::Failure(3, "one row only".into()))));
        let mut once = verification();
        once.ran(Err("one row only".into()));
        assert_eq!(tell(&mut once, &[10.0, 20.0, 30.0]), Some(Finding::Undecided));
    }
}
