//! NodeVolumeLimits: a node can attach only so many volumes of a CSI driver. Mirrors plugins/nodevolumelimits for CSI.

use std::collections::{BTreeMap, BTreeSet};

use crate::scheduler::cluster::Cluster;
use crate::scheduler::framework::Rejection;
use crate::scheduler::pod::{Shape, VolumeUse};
use crate::scheduler::snapshot::Seat;

/// Drivers and what is attached by each: handles of volumes, or names of claims that have none yet.
type Attached = BTreeMap<String, BTreeSet<String>>;

pub fn filter(cluster: &Cluster, shape: &Shape, seat: &Seat) -> Option<Rejection> {
    let limits = cluster.csi_limits.get(&seat.node.name)?;
    let mut wanted = Attached::new();
    attach(cluster, shape, &mut wanted);
    wanted.retain(|driver, _| limits.contains_key(driver));
    if wanted.is_empty() {
        return None;
    }
    let mut held = Attached::new();
    for (pod, _) in &seat.pods {
        attach(cluster, &pod.shape, &mut held);
    }
    let exceeds = |(driver, handles): (&String, &BTreeSet<String>)| {
        let before = held.get(driver).cloned().unwrap_or_default();
        let new = handles.difference(&before).count();
        let limit = limits.get(driver).copied().unwrap_or(i64::MAX);
        new > 0 && i64::try_from(before.len() + new).unwrap_or(i64::MAX) > limit
    };
    wanted
        .iter()
        .any(exceeds)
        .then(|| Rejection::unschedulable("node(s) exceed max volume count"))
}

fn attach(cluster: &Cluster, shape: &Shape, attached: &mut Attached) {
    for volume in &shape.volumes {
        let VolumeUse::Claim { name, .. } = volume else {
            continue;
        };
        let Some(claim) = cluster.claims.get(&(shape.namespace.clone(), name.clone())) else {
            continue;
        };
        let csi = cluster
            .volumes
            .get(&claim.volume_name)
            .and_then(|volume| volume.csi.clone());
        let provisioner = || {
            claim
                .class
                .as_ref()
                .and_then(|class| cluster.classes.get(class))
                .map(|class| class.provisioner.clone())
        };
        let found = csi.or_else(|| Some((provisioner()?, format!("{}/{name}", shape.namespace))));
        if let Some((driver, handle)) = found {
            attached.entry(driver).or_default().insert(handle);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::fixtures::{node, pod_from, seat_with};
    use serde_json::json;
    use std::sync::Arc;

    #[test]
    fn volumes_count_once_and_only_up_to_the_limit() {
        let mut cluster = Cluster::default();
        let mut upsert =
            |value: serde_json::Value| cluster.upsert(value.to_string().as_bytes()).unwrap();
        upsert(
            json!({"kind": "CSINode", "metadata": {"name": "n"}, "spec": {"drivers": [{"name": "x.io/csi", "allocatable": {"count": 1}}]}}),
        );
        for name in ["a", "b"] {
            upsert(
                json!({"kind": "PersistentVolume", "metadata": {"name": name}, "spec": {"csi": {"driver": "x.io/csi", "volumeHandle": name}}}),
            );
            upsert(
                json!({"kind": "PersistentVolumeClaim", "metadata": {"name": name, "namespace": "default"}, "spec": {"volumeName": name}}),
            );
        }
        let using = |claim: &str| {
            pod_from(
                "p",
                json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]}),
            )
        };
        let mut seat = seat_with(node("n"), &[]);
        seat.pods.push((Arc::new(using("a")), 0));
        assert!(filter(&cluster, &using("a").shape, &seat).is_none());
        assert!(filter(&cluster, &using("b").shape, &seat).is_some());
    }
}
