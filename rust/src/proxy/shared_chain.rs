//! The chains that all services with as many endpoints share, as netlink messages.
//!
//! Such a chain is one rule: draw a slot, look (address, protocol, port, slot) up, translate the destination. It is built here and not as
//! text because `nft` (1.0.6) adds a match on one protocol to it, whichever the map was declared with.

use super::netlink::{APPEND, CREATE, FAMILY_IPV4, REQUEST, Writer};
use super::tables::{Role, SharedChain};

const NEW_CHAIN: u16 = (10 << 8) | 3;
const NEW_RULE: u16 = (10 << 8) | 6;
const DELETE_RULE: u16 = (10 << 8) | 8;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const LIST_ITEM: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;

/// The four-byte registers that hold a key side by side; a 16-byte register begins where the first of them does.
const REGISTERS: [u32; 4] = [8, 9, 10, 11];
const META_MARK: u32 = 3;
const META_PROTOCOL: u32 = 16;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
const DRAW_RANDOM: u32 = 1;
const TRANSLATE_DESTINATION: u32 = 1;
/// Set on packets whose source must be hidden; kube-proxy's bit.
const MASQUERADE: u32 = 0x4000;

/// How many messages `write` writes.
pub const MESSAGES: u32 = 3;

/// Write the messages that make the chain, or make it anew; numbered from `sequence` on, the last with `flags`.
pub fn write(writer: &mut Writer, table: &str, chain: &SharedChain, sequence: u32, flags: u16) {
    let name = chain.name();
    let message = writer.begin(NEW_CHAIN, REQUEST | CREATE, sequence, FAMILY_IPV4, 0);
    writer.name(CHAIN_TABLE, table);
    writer.name(CHAIN_NAME, &name);
    writer.end(message);
    let message = writer.begin(
        DELETE_RULE,
        REQUEST,
        sequence.wrapping_add(1),
        FAMILY_IPV4,
        0,
    );
    writer.name(RULE_TABLE, table);
    writer.name(RULE_CHAIN, &name);
    writer.end(message);
    let message = writer.begin(
        NEW_RULE,
        REQUEST | CREATE | APPEND | flags,
        sequence.wrapping_add(2),
        FAMILY_IPV4,
        0,
    );
    writer.name(RULE_TABLE, table);
    writer.name(RULE_CHAIN, &name);
    let list = writer.nest(RULE_EXPRESSIONS);
    if matches!(chain.role, Role::External | Role::NodePort) {
        mark_for_masquerade(writer);
    }
    let by_address = matches!(
        chain.role,
        Role::Cluster | Role::External | Role::ExternalLocal
    );
    draw_and_translate(writer, by_address, chain.slots);
    writer.end_nest(list);
    writer.end(message);
}

/// `meta mark set meta mark | 0x4000`
fn mark_for_masquerade(writer: &mut Writer) {
    let [register, ..] = REGISTERS;
    expression(writer, "meta", &[(1, register), (2, META_MARK)]);
    with_expression(writer, "bitwise", |writer| {
        numbers(writer, &[(1, register), (2, register), (3, 4)]);
        // The mark is in the machine's own order.
        for (kind, value) in [(4, !MASQUERADE), (5, MASQUERADE)] {
            let nest = writer.nest(kind);
            writer.attribute(DATA_VALUE, &value.to_ne_bytes());
            writer.end_nest(nest);
        }
    });
    expression(writer, "meta", &[(2, META_MARK), (3, register)]);
}

/// `dnat ip to [ip daddr .] meta l4proto . th dport . numgen random mod SLOTS map @MAP`
fn draw_and_translate(writer: &mut Writer, by_address: bool, slots: usize) {
    let [first, second, ..] = REGISTERS;
    let mut free = REGISTERS.into_iter();
    let mut next = || free.next().unwrap_or(first);
    if by_address {
        expression(
            writer,
            "payload",
            &[(1, next()), (2, NETWORK_HEADER), (3, 16), (4, 4)],
        );
    }
    expression(writer, "meta", &[(1, next()), (2, META_PROTOCOL)]);
    expression(
        writer,
        "payload",
        &[(1, next()), (2, TRANSPORT_HEADER), (3, 2), (4, 2)],
    );
    let slots = u32::try_from(slots).unwrap_or(u32::MAX);
    expression(
        writer,
        "numgen",
        &[(1, next()), (2, slots), (3, DRAW_RANDOM)],
    );
    with_expression(writer, "lookup", |writer| {
        writer.name(
            1,
            if by_address {
                "endpoints"
            } else {
                "nodeport-endpoints"
            },
        );
        numbers(writer, &[(2, first), (3, first)]);
    });
    let family = u32::from(FAMILY_IPV4);
    expression(
        writer,
        "nat",
        &[
            (1, TRANSLATE_DESTINATION),
            (2, family),
            (3, first),
            (5, second),
        ],
    );
}

fn expression(writer: &mut Writer, name: &str, attributes: &[(u16, u32)]) {
    with_expression(writer, name, |writer| numbers(writer, attributes));
}

fn with_expression(writer: &mut Writer, name: &str, fill: impl FnOnce(&mut Writer)) {
    let item = writer.nest(LIST_ITEM);
    writer.name(EXPRESSION_NAME, name);
    let data = writer.nest(EXPRESSION_DATA);
    fill(writer);
    writer.end_nest(data);
    writer.end_nest(item);
}

fn numbers(writer: &mut Writer, attributes: &[(u16, u32)]) {
    for (kind, value) in attributes {
        writer.attribute(*kind, &value.to_be_bytes());
    }
}
