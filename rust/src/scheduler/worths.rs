//! What each node is worth for a pod, by rank, and which of the best kube-scheduler takes, found without looking at every node.
//!
//! Nodes lie in blocks. Of each block the top worth and the number of nodes that can take the pod are kept, and a change of one node
//! changes one block. kube-scheduler takes the tied node that comes first in pre-order over a binary heap of the feasible nodes. On
//! one level of the heap that is the first of the tied ones, so a search opens a block or two for each level and counts the others.

use std::ops::{Deref, Range};

/// What a node is worth that cannot take the pod.
pub const NO: i32 = -1;

const BLOCK: usize = 64;

#[derive(Debug, Default)]
pub struct Worths {
    all: Vec<i32>,
    /// The top worth of each block.
    most: Vec<i32>,
    /// How many nodes of each block are worth anything.
    feasible: Vec<usize>,
}

impl Deref for Worths {
    type Target = [i32];

    fn deref(&self) -> &[i32] {
        &self.all
    }
}

impl Worths {
    pub fn of(all: Vec<i32>) -> Worths {
        let most = all.chunks(BLOCK).map(top).collect();
        let feasible = all.chunks(BLOCK).map(count).collect();
        Worths {
            all,
            most,
            feasible,
        }
    }

    pub fn into_vec(self) -> Vec<i32> {
        self.all
    }

    pub fn set(&mut self, rank: usize, worth: i32) {
        let Some(place) = self.all.get_mut(rank) else {
            return;
        };
        let before = std::mem::replace(place, worth);
        let block = rank / BLOCK;
        let (Some(most), Some(feasible)) = (self.most.get_mut(block), self.feasible.get_mut(block))
        else {
            return;
        };
        *feasible = *feasible + usize::from(worth != NO) - usize::from(before != NO);
        if worth >= *most {
            *most = worth;
        } else if before == *most {
            *most = self.all.chunks(BLOCK).nth(block).map_or(NO, top);
        }
    }

    /// Return the rank of the node that is taken when nodes are visited from rank `start` on, or None when no node can take the pod.
    pub fn winner(&self, start: usize) -> Option<usize> {
        let best = top(&self.most);
        if best == NO {
            return None;
        }
        let start = start.min(self.all.len());
        let mut search = Search {
            best,
            position: 0,
            wanted_from: 0,
            winner: None,
        };
        self.visit(start..self.all.len(), &mut search);
        self.visit(0..start, &mut search);
        search.winner.map(|(_, rank)| rank)
    }

    fn visit(&self, ranks: Range<usize>, search: &mut Search) {
        let mut from = ranks.start;
        while from < ranks.end {
            let block = from / BLOCK;
            let next = ((block + 1) * BLOCK).min(self.all.len());
            let to = next.min(ranks.end);
            let is_whole = from == block * BLOCK && to == next;
            let most = self.most.get(block).copied().unwrap_or(NO);
            let feasible = self.feasible.get(block).copied().unwrap_or(0);
            if is_whole && !search.may_win(most, feasible) {
                search.position += feasible;
            } else {
                search.look(from, self.all.get(from..to).unwrap_or(&[]));
            }
            from = to;
        }
    }
}

fn top(block: &[i32]) -> i32 {
    block.iter().copied().fold(NO, i32::max)
}

fn count(block: &[i32]) -> usize {
    block.iter().filter(|one| **one != NO).count()
}

/// A walk over the nodes in visiting order.
struct Search {
    best: i32,
    /// How many feasible nodes were passed.
    position: usize,
    /// The first position of the level of the heap from which no tied node was seen yet.
    wanted_from: usize,
    winner: Option<((u64, u32), usize)>,
}

impl Search {
    fn may_win(&self, most: i32, feasible: usize) -> bool {
        most == self.best && self.position + feasible > self.wanted_from
    }

    fn look(&mut self, first: usize, worths: &[i32]) {
        for (offset, worth) in worths.iter().enumerate() {
            if *worth == self.best && self.position >= self.wanted_from {
                let found = (heap_rank(self.position), first + offset);
                self.winner = Some(self.winner.map_or(found, |known| known.min(found)));
                self.wanted_from = (2 << (self.position + 1).ilog2()) - 1;
            }
            self.position += usize::from(*worth != NO);
        }
    }
}

/// Return a key that orders heap positions in pre-order: the path from the root, left before right, an ancestor before its descendants.
pub fn heap_rank(position: usize) -> (u64, u32) {
    let number = position as u64 + 1;
    let depth = 63 - number.leading_zeros();
    // The bits below the leading one are the path; moved to the top they compare like strings, shorter paths first when equal.
    let path = if depth == 0 {
        0
    } else {
        number << (64 - depth)
    };
    (path, depth)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every node looked at, as upstream does.
    fn by_hand(all: &[i32], start: usize) -> Option<usize> {
        let best = top(all);
        let in_turn = (start..all.len()).chain(0..start);
        let feasible = in_turn.filter(|rank| all[*rank] != NO);
        feasible
            .enumerate()
            .filter(|(_, rank)| all[*rank] == best)
            .min_by_key(|(position, _)| heap_rank(*position))
            .map(|(_, rank)| rank)
    }

    #[test]
    fn the_winner_is_the_one_that_a_look_at_every_node_finds() {
        let mut state = 7_u64;
        let mut draw = move |below: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) % below
        };
        for _ in 0..3000 {
            let nodes = 1 + draw(700) as usize;
            // From almost all tied to almost none, and from nearly empty to nearly full.
            let (kinds, full) = (1 + draw(40), draw(5));
            let mut one = |_| {
                if draw(5) < full {
                    NO
                } else {
                    draw(kinds) as i32
                }
            };
            let mut worths = Worths::of((0..nodes).map(&mut one).collect());
            for _ in 0..draw(30) {
                let worth = if draw(4) == 0 { NO } else { draw(kinds) as i32 };
                worths.set(draw(nodes as u64) as usize, worth);
            }
            let start = draw(nodes as u64 + 1) as usize;
            assert_eq!(
                worths.winner(start),
                by_hand(&worths, start),
                "{worths:?} from {start}"
            );
        }
    }

    #[test]
    fn heap_positions_are_ordered_in_preorder() {
        // Heap positions 0..6 in pre-order: 0 1 3 4 2 5 6.
        let mut order: Vec<usize> = (0..7).collect();
        order.sort_by_key(|at| heap_rank(*at));
        assert_eq!(order, [0, 1, 3, 4, 2, 5, 6]);
    }
}
