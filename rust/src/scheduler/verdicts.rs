//! Why each node refuses the pods of a class, kept from one failure to the next: between two of them few nodes change.

use super::cycle::Failure;
use super::framework::{Plugin, Rejection};

/// Stands for a node that refuses nothing.
const NONE: u32 = u32::MAX;

/// Rejections by rank. Most nodes say the same, so that each rejection is kept once and counted; one that no node says any more
/// makes room for the next new one, because some have texts of their own.
#[derive(Debug, Default)]
pub struct Verdicts {
    by_rank: Vec<u32>,
    known: Vec<(Plugin, Rejection)>,
    /// How many nodes say each.
    nodes: Vec<usize>,
}

impl Verdicts {
    pub fn new(nodes: usize) -> Verdicts {
        Verdicts {
            by_rank: vec![NONE; nodes],
            ..Verdicts::default()
        }
    }

    pub fn set(&mut self, rank: usize, why: Option<(Plugin, Rejection)>) {
        let number = why.map_or(NONE, |why| self.number(why));
        let Some(place) = self.by_rank.get_mut(rank) else {
            return;
        };
        let before = std::mem::replace(place, number);
        if let Some(count) = self.nodes.get_mut(number as usize) {
            *count += 1;
        }
        if let Some(count) = self.nodes.get_mut(before as usize) {
            *count -= 1;
        }
    }

    fn number(&mut self, why: (Plugin, Rejection)) -> u32 {
        let known = self.known.iter().position(|one| *one == why);
        let at = known.unwrap_or_else(|| self.place(why));
        u32::try_from(at).unwrap_or(NONE)
    }

    fn place(&mut self, why: (Plugin, Rejection)) -> usize {
        let unsaid = self.nodes.iter().position(|nodes| *nodes == 0);
        if let Some((at, place)) = unsaid.and_then(|at| Some((at, self.known.get_mut(at)?))) {
            *place = why;
            return at;
        }
        self.known.push(why);
        self.nodes.push(0);
        self.known.len() - 1
    }

    pub fn failure(&self) -> Failure {
        let mut failure = Failure::of(self.by_rank.len());
        for ((plugin, why), nodes) in self.known.iter().zip(&self.nodes) {
            failure.diagnosis.reject(*plugin, why, *nodes);
        }
        let is_curable = |number: &u32| {
            let why = self.known.get(*number as usize);
            why.is_some_and(|(_, why)| why.is_curable())
        };
        let ranks = self.by_rank.iter().enumerate();
        failure.curable = ranks
            .filter(|(_, number)| is_curable(number))
            .map(|(rank, _)| rank)
            .collect();
        failure
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nodes_said_before_is_not_counted() {
        let mut verdicts = Verdicts::new(3);
        let full = || Some((Plugin::NodeResourcesFit, Rejection::unschedulable("full")));
        let cordoned = || {
            let why = Rejection::unresolvable("cordoned");
            Some((Plugin::NodeUnschedulable, why))
        };
        (0..3).for_each(|rank| verdicts.set(rank, full()));
        verdicts.set(0, cordoned());
        verdicts.set(1, full());
        let failure = verdicts.failure();
        assert_eq!(failure.curable, [1, 2]);
        assert_eq!(failure.diagnosis.unresolvable, 1);
        assert_eq!(
            failure.diagnosis.message(),
            "0/3 nodes are available: 1 cordoned, 2 full."
        );
        (0..3).for_each(|rank| verdicts.set(rank, cordoned()));
        let failure = verdicts.failure();
        assert_eq!(
            failure.diagnosis.plugins,
            [Plugin::NodeUnschedulable].into()
        );
        assert_eq!(
            failure.diagnosis.message(),
            "0/3 nodes are available: 3 cordoned."
        );
    }

    #[test]
    fn what_no_node_says_any_more_is_forgotten() {
        let mut verdicts = Verdicts::new(2);
        for round in 0..100 {
            for rank in 0..2 {
                let mut why = Rejection::unschedulable("");
                why.reasons = vec![format!("{rank} lacks {round} things").into()];
                verdicts.set(rank, Some((Plugin::NodeResourcesFit, why)));
            }
        }
        assert!(verdicts.known.len() <= 3);
        assert_eq!(
            verdicts.failure().diagnosis.message(),
            "0/2 nodes are available: 1 0 lacks 99 things, 1 1 lacks 99 things."
        );
    }
}
