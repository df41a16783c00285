//! Set elements to and from the kernel: a difference as batches of additions and deletions, and a dump of what is there.

use std::collections::BTreeMap;
use std::io;

use super::netlink::{ACK, Attributes, CREATE, DUMP, FAMILY_IPV4, Netfilter, REQUEST, Writer};
use super::tables::{Data, Elements, LEAVES, SETS};

const NEW_ELEMENTS: u16 = (10 << 8) | 12;
const GET_ELEMENTS: u16 = (10 << 8) | 13;
const DELETE_ELEMENTS: u16 = (10 << 8) | 14;
const LIST_TABLE: u16 = 1;
const LIST_SET: u16 = 2;
const LIST_ELEMENTS: u16 = 3;
const LIST_ITEM: u16 = 1;
const ELEMENT_KEY: u16 = 1;
const ELEMENT_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
const GOTO: i32 = -4;
/// A batch stays below this many bytes: it must fit the socket's buffer, and holds netfilter's lock for its commit.
const BATCH_BYTES_MAX: usize = 60_000;

/// One step from what is to what should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step<'a> {
    pub set: &'static str,
    pub key: &'a [u8],
    /// The element was there and must go first.
    pub deletes: bool,
    /// None: it only goes.
    pub adds: Option<&'a Data>,
}

/// Return the steps from `current` to `wanted`, ordered so that at every moment what leads to an endpoint finds one: endpoints are
/// added first and deleted last.
pub fn difference<'a>(current: &'a Elements, wanted: &'a Elements) -> Vec<Step<'a>> {
    let mut steps = Vec::new();
    let mut last = Vec::new();
    for (number, set) in SETS.iter().enumerate() {
        let empty = &EMPTY;
        let (now, then) = (
            current.get(set).unwrap_or(empty),
            wanted.get(set).unwrap_or(empty),
        );
        for (key, data) in then {
            let known = now.get(key);
            if known != Some(data) {
                steps.push(Step {
                    set,
                    key,
                    deletes: known.is_some(),
                    adds: Some(data),
                });
            }
        }
        let gone = now.keys().filter(|key| !then.contains_key(*key));
        let gone = gone.map(|key| Step {
            set,
            key,
            deletes: true,
            adds: None,
        });
        if number < LEAVES {
            last.extend(gone)
        } else {
            steps.extend(gone)
        }
    }
    steps.extend(last);
    steps
}

static EMPTY: BTreeMap<Vec<u8>, Data> = BTreeMap::new();

/// Carry the steps out, in one transaction if they fit a batch. Blocks until the kernel has committed, some 15 ms a batch.
pub fn commit(netfilter: &mut Netfilter, table: &str, steps: &[Step<'_>]) -> io::Result<()> {
    let mut rest = steps.iter().peekable();
    while rest.peek().is_some() {
        let mut writer = Writer::default();
        let first = netfilter.next_sequence();
        writer.batch_begin(first);
        let mut last = first;
        while let Some(step) = rest.next_if(|_| writer.len() < BATCH_BYTES_MAX) {
            // Only the last message needs an answer; an error is reported for any.
            let is_last = writer.len() + 200 >= BATCH_BYTES_MAX || rest.peek().is_none();
            if step.deletes {
                last = netfilter.next_sequence();
                let ack = if is_last && step.adds.is_none() {
                    ACK
                } else {
                    0
                };
                let head = Head {
                    kind: DELETE_ELEMENTS,
                    flags: REQUEST | ack,
                    sequence: last,
                };
                element(&mut writer, head, table, step.set, step.key, None);
            }
            if let Some(data) = step.adds {
                last = netfilter.next_sequence();
                let ack = if is_last { ACK } else { 0 };
                let head = Head {
                    kind: NEW_ELEMENTS,
                    flags: REQUEST | CREATE | ack,
                    sequence: last,
                };
                element(&mut writer, head, table, step.set, step.key, Some(data));
            }
            if is_last {
                break;
            }
        }
        let end = netfilter.next_sequence();
        writer.batch_end(end);
        netfilter.transact(&writer, first, last)?;
    }
    Ok(())
}

#[derive(Debug, Clone, Copy)]
struct Head {
    kind: u16,
    flags: u16,
    sequence: u32,
}

fn element(
    writer: &mut Writer,
    head: Head,
    table: &str,
    set: &str,
    key: &[u8],
    data: Option<&Data>,
) {
    let message = writer.begin(head.kind, head.flags, head.sequence, FAMILY_IPV4, 0);
    writer.name(LIST_TABLE, table);
    writer.name(LIST_SET, set);
    let list = writer.nest(LIST_ELEMENTS);
    let item = writer.nest(LIST_ITEM);
    let nest = writer.nest(ELEMENT_KEY);
    writer.attribute(DATA_VALUE, key);
    writer.end_nest(nest);
    match data {
        Some(Data::Value(value)) => {
            let nest = writer.nest(ELEMENT_DATA);
            writer.attribute(DATA_VALUE, value);
            writer.end_nest(nest);
        }
        Some(Data::Goto(chain)) => {
            let nest = writer.nest(ELEMENT_DATA);
            let verdict = writer.nest(DATA_VERDICT);
            writer.attribute(VERDICT_CODE, &GOTO.to_be_bytes());
            writer.name(VERDICT_CHAIN, chain);
            writer.end_nest(verdict);
            writer.end_nest(nest);
        }
        Some(Data::None) | None => {}
    }
    writer.end_nest(item);
    writer.end_nest(list);
    writer.end(message);
}

/// Return what the table's sets hold. Fails with NotFound when there is no such table.
pub fn dump(netfilter: &mut Netfilter, table: &str) -> io::Result<Elements> {
    let mut found = Elements::new();
    for set in SETS {
        let mut request = Writer::default();
        let message = request.begin(
            GET_ELEMENTS,
            REQUEST | DUMP,
            netfilter.next_sequence(),
            FAMILY_IPV4,
            0,
        );
        request.name(LIST_TABLE, table);
        request.name(LIST_SET, set);
        request.end(message);
        let elements: &mut BTreeMap<Vec<u8>, Data> = found.entry(set).or_default();
        netfilter.dump(&request, |message| {
            for (_, item) in
                Attributes::of(message.attributes().find(LIST_ELEMENTS).unwrap_or_default())
            {
                if let Some((key, data)) = read(Attributes::of(item)) {
                    elements.insert(key, data);
                }
            }
        })?;
    }
    Ok(found)
}

fn read(item: Attributes<'_>) -> Option<(Vec<u8>, Data)> {
    let key = item.path(&[ELEMENT_KEY, DATA_VALUE])?.to_vec();
    let data = if let Some(chain) = item.path(&[ELEMENT_DATA, DATA_VERDICT, VERDICT_CHAIN]) {
        Data::Goto(
            String::from_utf8_lossy(chain)
                .trim_end_matches('\0')
                .to_string(),
        )
    } else if let Some(value) = item.path(&[ELEMENT_DATA, DATA_VALUE]) {
        Data::Value(value.to_vec())
    } else {
        Data::None
    };
    Some((key, data))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_come_before_and_go_after_what_leads_to_them() {
        let elements = |endpoints: &[u8], services: &[(u8, &str)]| {
            let mut found = Elements::new();
            found.insert(
                "endpoints",
                endpoints
                    .iter()
                    .map(|key| (vec![*key], Data::Value(vec![*key])))
                    .collect(),
            );
            found.insert(
                "services",
                services
                    .iter()
                    .map(|(key, chain)| (vec![*key], Data::Goto((*chain).to_string())))
                    .collect(),
            );
            found
        };
        let current = elements(&[1, 2], &[(1, "two"), (9, "one")]);
        let wanted = elements(&[1, 3], &[(1, "one"), (7, "one")]);
        let words: Vec<String> = difference(&current, &wanted)
            .iter()
            .map(|step| {
                format!(
                    "{} {:?} {} {}",
                    step.set,
                    step.key,
                    step.deletes,
                    step.adds.is_some()
                )
            })
            .collect();
        assert_eq!(
            words,
            [
                "endpoints [3] false true",
                "services [1] true true",
                "services [7] false true",
                "services [9] true false",
                "endpoints [2] true false"
            ]
        );
        assert!(difference(&wanted, &wanted).is_empty());
    }
}
