//! The graph of a pipeline's steps.
//!
//! Reads the predecessors of each step, hands on a topological order and longest paths. Does not know what a step
//! is.

use std::fmt;

/// Why steps form no pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GraphFault {
    /// `step` names a predecessor that does not exist.
    Unknown {
        /// The step.
        step: usize,
        /// The predecessor.
        predecessor: usize,
    },
    /// These steps form a cycle.
    Cycle(Vec<usize>),
}

impl fmt::Display for GraphFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GraphFault::Unknown { step, predecessor } => {
                write!(f, "step {step} follows step {predecessor}, which does not exist")
            }
            GraphFault::Cycle(steps) => write!(f, "steps {steps:?} wait for each other"),
        }
    }
}

impl std::error::Error for GraphFault {}

/// The steps and their order: no cycles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Graph {
    predecessors: Vec<Vec<usize>>,
    successors: Vec<Vec<usize>>,
    order: Vec<usize>,
}

impl Graph {
    /// The graph in which each step follows its `predecessors`.
    ///
    /// # Errors
    /// A predecessor that does not exist, or the steps of a cycle.
    pub fn new(predecessors: Vec<Vec<usize>>) -> Result<Graph, GraphFault> {
        let count = predecessors.len();
        let mut successors = vec![Vec::new(); count];
        let mut missing = vec![0usize; count];
        for (step, before) in predecessors.iter().enumerate() {
            for predecessor in before {
                let after: &mut Vec<usize> = successors
                    .get_mut(*predecessor)
                    .ok_or(GraphFault::Unknown { step, predecessor: *predecessor })?;
                if !after.contains(&step) {
                    after.push(step);
                    missing[step] += 1;
                }
            }
        }
        let mut order: Vec<usize> = (0..count).filter(|step| missing[*step] == 0).collect();
        let mut next = 0;
        while let Some(step) = order.get(next).copied() {
            next += 1;
            for after in &successors[step] {
                missing[*after] -= 1;
                if missing[*after] == 0 {
                    order.push(*after);
                }
            }
        }
        if order.len() < count {
            return Err(GraphFault::Cycle(on_a_cycle(&missing, &successors)));
        }
        Ok(Graph { predecessors, successors, order })
    }

    /// One step after another.
    pub fn chain(steps: usize) -> Graph {
        Graph {
            predecessors: (0..steps).map(|step| step.checked_sub(1).into_iter().collect()).collect(),
            successors: (1..=steps)
                .map(|step| (step < steps).then_some(step).into_iter().collect())
                .collect(),
            order: (0..steps).collect(),
        }
    }

    /// Number of steps.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether there are no steps.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// The steps in topological order.
    pub fn order(&self) -> &[usize] {
        &self.order
    }

    /// The direct predecessors of a step.
    pub fn predecessors(&self, step: usize) -> &[usize] {
        &self.predecessors[step]
    }

    /// The direct successors of a step.
    pub fn successors(&self, step: usize) -> &[usize] {
        &self.successors[step]
    }

    /// For each step, the largest sum of `weight` over a path that leads to it, without itself.
    pub(crate) fn before(&self, weight: impl Fn(usize) -> f64) -> Vec<f64> {
        let mut before = vec![0.0f64; self.len()];
        for step in &self.order {
            let through = before[*step] + weight(*step);
            self.successors[*step].iter().for_each(|after| before[*after] = before[*after].max(through));
        }
        before
    }

    /// For each step, the largest sum of `weight` over a path that starts at it, without itself.
    pub(crate) fn after(&self, weight: impl Fn(usize) -> f64) -> Vec<f64> {
        let mut after = vec![0.0f64; self.len()];
        for step in self.order.iter().rev() {
            let through = after[*step] + weight(*step);
            self.predecessors[*step].iter().for_each(|before| after[*before] = after[*before].max(through));
        }
        after
    }
}

/// Of the steps that were never ready, those on a cycle (not those that only follow one).
fn on_a_cycle(missing: &[usize], successors: &[Vec<usize>]) -> Vec<usize> {
    let reaches_itself = |start: usize| {
        let (mut seen, mut open) = (vec![false; missing.len()], vec![start]);
        while let Some(step) = open.pop() {
            for after in &successors[step] {
                if *after == start {
                    return true;
                }
                if !std::mem::replace(&mut seen[*after], true) {
                    open.push(*after);
                }
            }
        }
        false
    };
    (0..missing.len()).filter(|step| missing[*step] > 0 && reaches_itself(*step)).collect()
}

/// 0 → {1, 2} → 3, and 2 → 4 → 3.
#[cfg(test)]
pub(super) fn diamond() -> Graph {
    Graph::new(vec![vec![], vec![0], vec![0], vec![1, 4], vec![2]]).expect("no cycle")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_stand_after_all_that_they_follow() {
        assert_eq!(diamond().order(), [0, 1, 2, 4, 3]);
        assert_eq!(Graph::chain(3), Graph::new(vec![vec![], vec![0], vec![1]]).expect("a chain"));
        assert_eq!(Graph::new(vec![vec![], vec![0, 0]]).expect("one twice").order(), [0, 1]);
    }

    #[test]
    fn a_cycle_is_named_without_those_that_only_follow_it() {
        let fault = Graph::new(vec![vec![], vec![0, 3], vec![1], vec![2], vec![3]]);
        assert_eq!(fault, Err(GraphFault::Cycle(vec![1, 2, 3])));
        let fault = Graph::new(vec![vec![2]]);
        assert_eq!(fault, Err(GraphFault::Unknown { step: 0, predecessor: 2 }));
        assert_eq!(Graph::new(vec![vec![0]]), Err(GraphFault::Cycle(vec![0])));
    }
}
