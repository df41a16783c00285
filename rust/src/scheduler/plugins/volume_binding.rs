//! VolumeBinding: a bound claim's volume must be reachable from the node; for a claim that waits for its first consumer there must be
//! a volume that fits, or a class that can make one there and has the capacity. Nodes are scored by how much of the volumes or of the
//! capacity the claims would use, the least by default. Mirrors plugins/volumebinding.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::node_resources_fit::interpolate;
use super::volume_restrictions::find;
use crate::scheduler::cluster::{Claim, Cluster, StorageClass, Volume};
use crate::scheduler::framework::{Code, Rejection};
use crate::scheduler::node::Node;
use crate::scheduler::pod::{Shape, VolumeUse};
use crate::scheduler::snapshot::Snapshot;

const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// The pod's claims, by name in its namespace.
#[derive(Debug, Default)]
pub struct Claims {
    bound: Vec<String>,
    /// Those that wait for their first consumer, the smallest first.
    pub waiting: Vec<String>,
}

/// Return the pod's claims, or the words for one that no node can help.
pub fn claims(snapshot: &Snapshot, shape: &Shape) -> Result<Claims, String> {
    let mut claims = Claims::default();
    let mut has_unbound = false;
    for volume in &shape.volumes {
        let VolumeUse::Claim { name, is_generic } = volume else {
            continue;
        };
        let claim = find(snapshot, shape, name).ok_or_else(|| {
            if *is_generic {
                format!("waiting for ephemeral volume controller to create the persistentvolumeclaim \"{name}\"")
            } else {
                format!("persistentvolumeclaim \"{name}\" not found")
            }
        })?;
        if claim.is_being_deleted {
            return Err(format!("persistentvolumeclaim \"{name}\" is being deleted"));
        }
        if claim.is_bound {
            claims.bound.push(name.clone());
        } else if claim.volume_name.is_empty()
            && class_of(&snapshot.cluster, claim)
                .is_some_and(|class| class.waits_for_first_consumer)
        {
            claims.waiting.push(name.clone());
        } else {
            has_unbound = true;
        }
    }
    if has_unbound {
        return Err("pod has unbound immediate PersistentVolumeClaims".into());
    }
    claims
        .waiting
        .sort_by_key(|name| find(snapshot, shape, name).map(|claim| claim.request));
    Ok(claims)
}

pub fn filter(
    snapshot: &Snapshot,
    shape: &Shape,
    claims: &Claims,
    node: &Node,
) -> Option<Rejection> {
    let cluster = &snapshot.cluster;
    let mut reasons: Vec<Cow<'static, str>> = Vec::new();
    let bound = claims
        .bound
        .iter()
        .filter_map(|name| find(snapshot, shape, name))
        .map(|claim| cluster.volumes.get(&claim.volume_name));
    let (mut is_lost, mut is_elsewhere) = (false, false);
    for volume in bound {
        is_lost |= volume.is_none();
        is_elsewhere |= volume.is_some_and(|volume| !is_reachable(volume, node));
    }
    if is_elsewhere {
        reasons.push(Cow::Borrowed(
            "node(s) didn't match PersistentVolume's node affinity",
        ));
    }
    match plan(snapshot, shape, claims, node) {
        Ok(_) => {}
        Err(Missing::Volumes) => reasons.push(Cow::Borrowed(
            "node(s) didn't find available persistent volumes to bind",
        )),
        Err(Missing::Space) => {
            reasons.push(Cow::Borrowed("node(s) did not have enough free storage"))
        }
    }
    if is_lost {
        reasons.push(Cow::Borrowed(
            "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)",
        ));
    }
    (!reasons.is_empty()).then_some(Rejection {
        code: Code::UnschedulableAndUnresolvable,
        reasons,
    })
}

/// Why claims cannot have their volumes on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    Volumes,
    Space,
}

/// What one class would give on a node: bytes asked for, and bytes that there are.
#[derive(Debug, Clone, Copy, Default)]
struct Use {
    requested: i64,
    capacity: i64,
}

/// How the waiting claims would get their volumes on a node, by class.
#[derive(Debug, Default)]
struct Plan<'a> {
    existing: BTreeMap<&'a str, Use>,
    made: BTreeMap<&'a str, Use>,
}

fn plan<'a>(
    snapshot: &'a Snapshot,
    shape: &'a Shape,
    claims: &Claims,
    node: &Node,
) -> Result<Plan<'a>, Missing> {
    let cluster = &snapshot.cluster;
    let waiting: Vec<(&String, &Claim)> = claims
        .waiting
        .iter()
        .filter_map(|name| Some((name, find(snapshot, shape, name)?)))
        .collect();
    let is_for_another =
        |claim: &Claim| !claim.selected_node.is_empty() && claim.selected_node != node.name;
    if waiting.len() < claims.waiting.len()
        || waiting.iter().any(|(_, claim)| is_for_another(claim))
    {
        return Err(Missing::Volumes);
    }
    let (mut to_make, to_find): (Vec<_>, Vec<_>) = waiting
        .into_iter()
        .partition(|(_, claim)| !claim.selected_node.is_empty());
    let mut plan = Plan::default();
    let mut taken: BTreeSet<&str> = BTreeSet::new();
    for (name, claim) in to_find {
        match smallest(cluster, (&shape.namespace, name), claim, node, &taken) {
            Some((found, volume)) => {
                taken.insert(found);
                let of_class = plan.existing.entry(class_name(claim)).or_default();
                of_class.requested += claim.request.value();
                of_class.capacity += volume.capacity.value();
            }
            None => to_make.push((name, claim)),
        }
    }
    for (_, claim) in to_make {
        let class = class_of(cluster, claim).ok_or(Missing::Volumes)?;
        if !can_provision(class, node) {
            return Err(Missing::Volumes);
        }
        if let Some(capacity) = capacity_for(cluster, class, claim, node)? {
            let of_class = plan.made.entry(class_name(claim)).or_default();
            of_class.requested += claim.request.value();
            of_class.capacity = capacity;
        }
    }
    Ok(plan)
}

/// Return the node's score, 0 to 100; `points` say what a utilisation in percent is worth.
pub fn score(
    snapshot: &Snapshot,
    shape: &Shape,
    claims: &Claims,
    node: &Node,
    points: &[(i64, i64)],
) -> i64 {
    let Ok(plan) = plan(snapshot, shape, claims, node) else {
        return 0;
    };
    let classes = if plan.existing.is_empty() {
        plan.made
    } else {
        plan.existing
    };
    if classes.is_empty() {
        return 0;
    }
    let worth = |of: &Use| {
        let utilization = if of.capacity == 0 || of.requested > of.capacity {
            100
        } else {
            (i128::from(of.requested) * 100 / i128::from(of.capacity)) as i64
        };
        interpolate(points, utilization)
    };
    let sum: i64 = classes.values().map(worth).sum();
    (sum as f64 / classes.len() as f64).round() as i64
}

/// Return how many bytes the class has for the node, or None when nobody counts them.
fn capacity_for(
    cluster: &Cluster,
    class: &StorageClass,
    claim: &Claim,
    node: &Node,
) -> Result<Option<i64>, Missing> {
    if claim.request.value() == 0 || !cluster.capacity_drivers.contains(&class.provisioner) {
        return Ok(None);
    }
    let mut of_class = cluster
        .capacities
        .values()
        .filter(|one| one.class == class_name(claim));
    of_class
        .find(|one| {
            one.limit.is_some_and(|limit| limit >= claim.request)
                && one
                    .nodes
                    .as_ref()
                    .is_some_and(|nodes| nodes.matches(&node.labels))
        })
        .map(|one| Some(one.capacity.value()))
        .ok_or(Missing::Space)
}

fn class_name(claim: &Claim) -> &str {
    claim.class.as_deref().unwrap_or("")
}

/// Return the smallest volume that the claim could be bound to on the node.
fn smallest<'a>(
    cluster: &'a Cluster,
    key: (&String, &String),
    claim: &Claim,
    node: &Node,
    taken: &BTreeSet<&str>,
) -> Option<(&'a str, &'a Volume)> {
    let class = class_name(claim);
    let fits = |(name, volume): &(&String, &Volume)| {
        let is_free = volume.claim.as_ref().is_none_or(|(namespace, of, uid)| {
            (namespace, of) == key && (uid.is_empty() || *uid == claim.uid)
        });
        is_free
            && !taken.contains(name.as_str())
            && !volume.is_being_deleted
            && volume.class == class
            && volume.volume_mode == claim.volume_mode
            && claim.access_modes.is_subset(&volume.access_modes)
            && claim
                .selector
                .as_ref()
                .is_none_or(|selector| selector.matches(&volume.labels))
            && volume.capacity >= claim.request
            && is_reachable(volume, node)
    };
    // A volume that is promised to the claim comes before all others.
    let candidates = cluster.volumes.iter().filter(fits);
    candidates
        .min_by_key(|(_, volume)| (volume.claim.is_none(), volume.capacity))
        .map(|(name, volume)| (name.as_str(), volume))
}

fn class_of<'a>(cluster: &'a Cluster, claim: &Claim) -> Option<&'a StorageClass> {
    cluster.classes.get(claim.class.as_deref()?)
}

fn is_reachable(volume: &Volume, node: &Node) -> bool {
    volume.node_terms.as_ref().is_none_or(|terms| {
        terms
            .iter()
            .any(|term| term.matches(&node.name, &node.labels))
    })
}

fn can_provision(class: &StorageClass, node: &Node) -> bool {
    let matches = |term: &Vec<(String, Vec<String>)>| {
        term.iter().all(|(key, values)| {
            node.labels
                .get(key)
                .is_some_and(|value| values.contains(value))
        })
    };
    let has_provisioner = !class.provisioner.is_empty() && class.provisioner != NO_PROVISIONER;
    has_provisioner
        && (class.allowed_topologies.is_empty() || class.allowed_topologies.iter().any(matches))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::fixtures::{node_in_zone, pod_from, snapshot};
    use serde_json::{Value, json};

    const ZONE: &str = "topology.kubernetes.io/zone";

    fn volume(name: &str, zone: &str, size: &str) -> Value {
        let term = json!({"matchExpressions": [{"key": ZONE, "operator": "In", "values": [zone]}]});
        json!({"kind": "PersistentVolume", "metadata": {"name": name}, "spec": {"storageClassName": "local", "accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": size}, "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}}}})
    }

    fn claim(name: &str, class: &str, volume: &str) -> Value {
        let mut claim = json!({"kind": "PersistentVolumeClaim", "metadata": {"name": name, "namespace": "default"}, "spec": {"storageClassName": class,
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "5Gi"}}}});
        if !volume.is_empty() {
            claim["spec"]["volumeName"] = json!(volume);
            claim["metadata"]["annotations"] = json!({"pv.kubernetes.io/bind-completed": "yes"});
        }
        claim
    }

    fn class(name: &str, mode: &str, provisioner: &str) -> Value {
        json!({"kind": "StorageClass", "metadata": {"name": name}, "volumeBindingMode": mode, "provisioner": provisioner})
    }

    /// Returns the words that hold for all nodes, or those for the nodes of zones a and b.
    fn ask(objects: &[Value], claim: &str) -> Result<[Vec<Cow<'static, str>>; 2], String> {
        let mut snapshot = snapshot(vec![]);
        for one in objects {
            snapshot.cluster.upsert(one.to_string().as_bytes()).unwrap();
        }
        let shape = pod_from(
            "p",
            json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]}),
        )
        .shape;
        let claims = claims(&snapshot, &shape)?;
        Ok(["a", "b"].map(|zone| {
            filter(&snapshot, &shape, &claims, &node_in_zone("n", zone))
                .map_or(vec![], |why| why.reasons)
        }))
    }

    #[test]
    fn bound_claims_follow_their_volumes() {
        let found = ask(&[volume("v", "a", "5Gi"), claim("c", "local", "v")], "c").unwrap();
        assert_eq!(
            found,
            [
                vec![],
                vec![Cow::Borrowed(
                    "node(s) didn't match PersistentVolume's node affinity"
                )]
            ]
        );
        let lost = ask(&[claim("c", "local", "gone")], "c").unwrap();
        assert_eq!(
            lost[0],
            ["node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"]
        );
    }

    #[test]
    fn waiting_claims_need_a_volume_that_fits_or_a_provisioner() {
        let waits = class("local", "WaitForFirstConsumer", NO_PROVISIONER);
        let none = vec![Cow::Borrowed(
            "node(s) didn't find available persistent volumes to bind",
        )];
        let small = ask(
            &[
                waits.clone(),
                volume("v", "a", "1Gi"),
                claim("c", "local", ""),
            ],
            "c",
        )
        .unwrap();
        assert_eq!(small, [none.clone(), none.clone()]);
        let fitting = ask(
            &[waits, volume("v", "a", "9Gi"), claim("c", "local", "")],
            "c",
        )
        .unwrap();
        assert_eq!(fitting, [vec![], none]);
        let made = ask(
            &[
                class("fast", "WaitForFirstConsumer", "x.io/csi"),
                claim("c", "fast", ""),
            ],
            "c",
        )
        .unwrap();
        assert_eq!(made, [vec![], vec![]] as [Vec<Cow<'static, str>>; 2]);
    }

    #[test]
    fn what_no_node_can_help_is_said_at_once() {
        let immediate = [class("now", "Immediate", "x.io/csi"), claim("c", "now", "")];
        assert_eq!(
            ask(&immediate, "c").unwrap_err(),
            "pod has unbound immediate PersistentVolumeClaims"
        );
        assert_eq!(
            ask(&[], "c").unwrap_err(),
            "persistentvolumeclaim \"c\" not found"
        );
    }

    fn capacity(name: &str, zone: &str, bytes: &str) -> Value {
        json!({"kind": "CSIStorageCapacity", "metadata": {"name": name, "namespace": "kube-system"}, "storageClassName": "fast",
            "nodeTopology": {"matchLabels": {ZONE: zone}}, "capacity": bytes})
    }

    fn counted() -> Vec<Value> {
        vec![
            class("fast", "WaitForFirstConsumer", "x.io/csi"),
            claim("c", "fast", ""),
            json!({"kind": "CSIDriver", "metadata": {"name": "x.io/csi"}, "spec": {"storageCapacity": true}}),
        ]
    }

    #[test]
    fn a_driver_that_counts_needs_capacity_on_the_node() {
        let short = vec![Cow::Borrowed("node(s) did not have enough free storage")];
        assert_eq!(
            ask(&counted(), "c").unwrap(),
            [short.clone(), short.clone()]
        );
        let mut objects = counted();
        objects.push(capacity("a", "a", "10Gi"));
        objects.push(capacity("b", "b", "4Gi"));
        assert_eq!(ask(&objects, "c").unwrap(), [vec![], short]);
    }

    #[test]
    fn nodes_are_scored_by_the_share_of_the_capacity_that_is_left() {
        let falling = [(0, 100), (100, 0)];
        let scores = |objects: &[Value], points: &[(i64, i64)]| {
            let mut snapshot = snapshot(vec![]);
            for one in objects {
                snapshot.cluster.upsert(one.to_string().as_bytes()).unwrap();
            }
            let volumes = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}, {"name": "w", "persistentVolumeClaim": {"claimName": "d"}}]);
            let shape = pod_from("p", json!({"volumes": volumes})).shape;
            let claims = claims(&snapshot, &shape).unwrap();
            ["a", "b"]
                .map(|zone| score(&snapshot, &shape, &claims, &node_in_zone("n", zone), points))
        };
        let mut made = counted();
        made.extend([
            claim("d", "fast", ""),
            capacity("a", "a", "20Gi"),
            capacity("b", "b", "100Gi"),
        ]);
        // Two claims of 5Gi each: half of the one, a tenth of the other.
        assert_eq!(scores(&made, &falling), [50, 90]);
        assert_eq!(scores(&made, &[(0, 0), (100, 100)]), [50, 10]);
        let local = [
            class("local", "WaitForFirstConsumer", NO_PROVISIONER),
            claim("c", "local", ""),
            claim("d", "local", ""),
            volume("a1", "a", "5Gi"),
            volume("a2", "a", "5Gi"),
            volume("b1", "b", "5Gi"),
            volume("b2", "b", "15Gi"),
        ];
        assert_eq!(scores(&local, &falling), [0, 50]);
    }
}
