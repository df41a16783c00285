//! The comparisons of a transaction.

use std::cmp::Ordering;

use super::wire::compare::TargetUnion;
use super::wire::request_op::Request;
use super::wire::{Compare, CompareResult, CompareTarget, TxnRequest};
use crate::store::{Revision, Txn};

/// Which branch `request` and the transactions nested in the branches that will be taken go, in the order of their execution.
pub(super) fn path(txn: &Txn<'_>, request: &TxnRequest) -> Vec<bool> {
    let mut path = Vec::with_capacity(1);
    add_path(txn, request, &mut path);
    path
}

fn add_path(txn: &Txn<'_>, request: &TxnRequest, path: &mut Vec<bool>) {
    let succeeds = request.compare.iter().all(|compare| holds(txn, compare));
    path.push(succeeds);
    let ops = if succeeds {
        &request.success
    } else {
        &request.failure
    };
    for op in ops {
        if let Some(Request::Txn(nested)) = &op.request {
            add_path(txn, nested, path);
        }
    }
}

/// Whether every key of the range fulfils the comparison. A missing key counts as one whose numbers are all zero; its value
/// compares with nothing.
fn holds(txn: &Txn<'_>, compare: &Compare) -> bool {
    if compare.range_end.is_empty() {
        return fulfils(compare, txn.get(&compare.key).as_deref());
    }
    match txn.span(&compare.key, &compare.range_end, 0, 0) {
        Ok(page) if page.items.is_empty() => fulfils(compare, None),
        Ok(page) => page.items.iter().all(|item| fulfils(compare, Some(item))),
        Err(_) => false,
    }
}

fn fulfils(compare: &Compare, item: Option<&Revision>) -> bool {
    let number = |of: fn(&Revision) -> i64, wanted: i64| item.map_or(0, of).cmp(&wanted);
    let union = compare.target_union.as_ref();
    let Ok(target) = CompareTarget::try_from(compare.target) else {
        // etcd leaves the order of an unknown target at equal.
        return satisfies(compare, Ordering::Equal);
    };
    let order = match target {
        CompareTarget::Value => {
            let Some(item) = item else {
                return false;
            };
            let wanted = match union {
                Some(TargetUnion::Value(value)) => value.as_ref(),
                _ => &[],
            };
            item.value().cmp(wanted)
        }
        CompareTarget::Version => number(
            |item| item.version as i64,
            match union {
                Some(TargetUnion::Version(wanted)) => *wanted,
                _ => 0,
            },
        ),
        CompareTarget::Create => number(
            |item| item.created as i64,
            match union {
                Some(TargetUnion::CreateRevision(wanted)) => *wanted,
                _ => 0,
            },
        ),
        CompareTarget::Mod => number(
            |item| item.modified as i64,
            match union {
                Some(TargetUnion::ModRevision(wanted)) => *wanted,
                _ => 0,
            },
        ),
        CompareTarget::Lease => number(
            |item| item.lease,
            match union {
                Some(TargetUnion::Lease(wanted)) => *wanted,
                _ => 0,
            },
        ),
    };
    satisfies(compare, order)
}

fn satisfies(compare: &Compare, order: Ordering) -> bool {
    match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => order.is_eq(),
        Ok(CompareResult::NotEqual) => order.is_ne(),
        Ok(CompareResult::Greater) => order.is_gt(),
        Ok(CompareResult::Less) => order.is_lt(),
        // As etcd has it.
        Err(_) => true,
    }
}
