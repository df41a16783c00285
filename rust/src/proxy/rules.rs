//! The rules, as text for `nft -f`: the base of the table once, and the chains of service ports with session affinity.
//! Everything that changes often are elements, which do not pass through here.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use super::ProxyError;
use super::desired::Target;
use super::tables::{Affinity, affinity_chain, affinity_masquerade_chain};

/// Set on packets whose source must be hidden; kube-proxy's bit.
const MASQUERADE: &str = "0x4000";

/// Return the script that makes the table, or repairs its rules when it is there; elements stay. `cluster_cidr`, when not empty, is
/// the range of the pods: connections from elsewhere to a cluster IP have their source hidden.
pub fn base(table: &str, cluster_cidr: &str) -> String {
    let off_cluster = if cluster_cidr.is_empty() {
        String::new()
    } else {
        format!(
            "add rule ip {table} route ip saddr != {cluster_cidr} ip daddr @cluster-ips meta mark set meta mark or {MASQUERADE}\n"
        )
    };
    let mut script = String::new();
    let sets = [
        "map services { type ipv4_addr . inet_proto . inet_service : verdict; }",
        "map endpoints { typeof ip daddr . meta l4proto . th dport . numgen random mod 65536 : ip daddr . tcp dport; }",
        "map nodeports { type inet_proto . inet_service : verdict; }",
        "map nodeport-endpoints { typeof meta l4proto . th dport . numgen random mod 65536 : ip daddr . tcp dport; }",
        "set cluster-ips { type ipv4_addr; }",
        "set hairpin { type ipv4_addr . ipv4_addr; }",
        "set no-endpoint-nodeports { type inet_proto . inet_service; }",
    ];
    let chains = [
        ("route", ""),
        ("refuse", ""),
        (
            "nat-prerouting",
            "{ type nat hook prerouting priority -100; }",
        ),
        ("nat-output", "{ type nat hook output priority -100; }"),
        (
            "nat-postrouting",
            "{ type nat hook postrouting priority 100; }",
        ),
        ("filter-input", "{ type filter hook input priority -110; }"),
        (
            "filter-forward",
            "{ type filter hook forward priority -110; }",
        ),
        ("filter-output", "{ type filter hook output priority -90; }"),
    ];
    let _ = writeln!(script, "add table ip {table}");
    for declaration in sets {
        let (kind, rest) = declaration.split_once(' ').unwrap_or((declaration, ""));
        let _ = writeln!(script, "add {kind} ip {table} {rest}");
    }
    for (chain, hook) in chains {
        let _ = writeln!(
            script,
            "add chain ip {table} {chain} {hook}\nflush chain ip {table} {chain}"
        );
    }
    let rules = [
        ("route", "ip daddr . meta l4proto . th dport vmap @services"),
        (
            "route",
            "ip daddr != 127.0.0.0/8 fib daddr type local meta l4proto . th dport vmap @nodeports",
        ),
        ("nat-prerouting", "jump route"),
        ("nat-output", "jump route"),
        (
            "nat-postrouting",
            "ct status dnat ip saddr . ip daddr @hairpin masquerade",
        ),
        ("nat-postrouting", "meta mark & 0x4000 == 0x0 return"),
        ("nat-postrouting", "meta mark set meta mark ^ 0x4000"),
        ("nat-postrouting", "masquerade fully-random"),
        // What has not been sent on to an endpoint by now has none, or no such port. A reset is not rate-limited as ICMP is.
        (
            "filter-input",
            "ct state new fib daddr type local meta l4proto . th dport @no-endpoint-nodeports goto refuse",
        ),
        (
            "filter-forward",
            "ct state new ip daddr @cluster-ips goto refuse",
        ),
        (
            "filter-output",
            "ct state new ip daddr @cluster-ips goto refuse",
        ),
        ("refuse", "meta l4proto tcp reject with tcp reset"),
        ("refuse", "reject"),
    ];
    script.push_str(&off_cluster);
    for (chain, rule) in rules {
        let _ = writeln!(script, "add rule ip {table} {chain} {rule}");
    }
    script
}

/// Return the script of a service port with affinity. Each endpoint has a set of the clients that stay with it; an endpoint that was
/// there before keeps its set.
pub fn affinity(table: &str, affinity: &Affinity) -> String {
    let chain = affinity_chain(&affinity.id);
    let masquerade = affinity_masquerade_chain(&affinity.id);
    let mut script = String::new();
    for name in [&chain, &masquerade] {
        let _ = writeln!(
            script,
            "add chain ip {table} {name}\nflush chain ip {table} {name}"
        );
    }
    let _ = writeln!(
        script,
        "add rule ip {table} {masquerade} meta mark set meta mark or {MASQUERADE}"
    );
    let _ = writeln!(script, "add rule ip {table} {masquerade} goto {chain}");
    let mut choices = Vec::new();
    for (slot, target) in affinity.targets.iter().enumerate() {
        let endpoint = endpoint_name(&affinity.id, target);
        let _ = writeln!(
            script,
            "add set ip {table} {endpoint} {{ type ipv4_addr; flags dynamic,timeout; timeout {}s; }}\n\
             add chain ip {table} {endpoint}\nflush chain ip {table} {endpoint}\n\
             add rule ip {table} {endpoint} update @{endpoint} {{ ip saddr }}\n\
             add rule ip {table} {endpoint} meta l4proto {{ tcp, udp, sctp }} dnat ip to {}:{}\n\
             add rule ip {table} {chain} ip saddr @{endpoint} goto {endpoint}",
            affinity.timeout_s, target.ip, target.port
        );
        choices.push(format!("{slot} : goto {endpoint}"));
    }
    let _ = writeln!(
        script,
        "add rule ip {table} {chain} numgen random mod {} vmap {{ {} }}",
        choices.len(),
        choices.join(", ")
    );
    script
}

/// Return the script that removes endpoints of an affinity, and its own chains when `whole`.
pub fn drop_affinity(table: &str, id: &str, targets: &[Target], whole: bool) -> String {
    let mut script = String::new();
    let own = [affinity_masquerade_chain(id), affinity_chain(id)];
    if whole {
        for chain in &own {
            let _ = writeln!(script, "flush chain ip {table} {chain}");
        }
    }
    for target in targets {
        let endpoint = endpoint_name(id, target);
        let _ = writeln!(
            script,
            "flush chain ip {table} {endpoint}\ndelete chain ip {table} {endpoint}\ndelete set ip {table} {endpoint}"
        );
    }
    if whole {
        for chain in &own {
            let _ = writeln!(script, "delete chain ip {table} {chain}");
        }
    }
    script
}

/// Return the script that removes the table, whether it is there or not.
pub fn drop_table(table: &str) -> String {
    format!("add table ip {table}\ndelete table ip {table}\n")
}

fn endpoint_name(id: &str, target: &Target) -> String {
    format!("affinity-{id}-{}-{}", target.ip, target.port)
}

/// Run a script in one transaction. Blocks for some milliseconds.
pub fn run(script: &str) -> Result<(), ProxyError> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(ProxyError::Spawn)?;
    if let Some(mut input) = child.stdin.take() {
        input
            .write_all(script.as_bytes())
            .map_err(ProxyError::Spawn)?;
    }
    let output = child.wait_with_output().map_err(ProxyError::Spawn)?;
    if output.status.success() {
        return Ok(());
    }
    Err(ProxyError::Refused(
        String::from_utf8_lossy(&output.stderr).trim().to_string(),
    ))
}
