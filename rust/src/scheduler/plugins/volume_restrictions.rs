//! VolumeRestrictions: disks that cannot be in two places, and claims that only one pod may use. Mirrors plugins/volumerestrictions.

use crate::scheduler::cluster::Claim;
use crate::scheduler::framework::Rejection;
use crate::scheduler::pod::{Shape, VolumeUse};
use crate::scheduler::snapshot::{Seat, Snapshot};

/// Return the words for a claim that is missing, or else how many claims for one pod only are in use by others.
pub fn conflicts(snapshot: &Snapshot, shape: &Shape) -> Result<usize, String> {
    let mut conflicts = 0;
    for volume in &shape.volumes {
        let VolumeUse::Claim {
            name,
            is_generic: false,
        } = volume
        else {
            continue;
        };
        let Some(claim) = find(snapshot, shape, name) else {
            return Err(format!("persistentvolumeclaim \"{name}\" not found"));
        };
        let is_exclusive = claim.access_modes.contains("ReadWriteOncePod");
        conflicts += usize::from(is_exclusive && snapshot.claim_users(&shape.namespace, name) > 0);
    }
    Ok(conflicts)
}

pub fn filter(shape: &Shape, seat: &Seat, conflicts: usize) -> Option<Rejection> {
    let on_node = || seat.pods.iter().flat_map(|(pod, _)| &pod.shape.volumes);
    if shape
        .volumes
        .iter()
        .any(|wanted| on_node().any(|held| clashes(wanted, held)))
    {
        return Some(Rejection::unschedulable("node(s) had no available disk"));
    }
    (conflicts > 0).then(|| {
        Rejection::unschedulable("node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod")
    })
}

pub fn find<'a>(snapshot: &'a Snapshot, shape: &Shape, claim: &str) -> Option<&'a Claim> {
    snapshot
        .cluster
        .claims
        .get(&(shape.namespace.clone(), claim.to_string()))
}

pub fn clashes(wanted: &VolumeUse, held: &VolumeUse) -> bool {
    match (wanted, held) {
        (
            VolumeUse::GcePersistentDisk { name, read_only },
            VolumeUse::GcePersistentDisk {
                name: other,
                read_only: other_read_only,
            },
        ) => name == other && !(*read_only && *other_read_only),
        (VolumeUse::AwsElasticBlockStore { id }, VolumeUse::AwsElasticBlockStore { id: other }) => {
            id == other
        }
        (
            VolumeUse::Iscsi { iqn, read_only },
            VolumeUse::Iscsi {
                iqn: other,
                read_only: other_read_only,
            },
        ) => iqn == other && !(*read_only && *other_read_only),
        (
            VolumeUse::Rbd {
                monitors,
                pool,
                image,
                read_only,
            },
            VolumeUse::Rbd {
                monitors: other_monitors,
                pool: other_pool,
                image: other_image,
                read_only: other_read_only,
            },
        ) => {
            let same = pool == other_pool
                && image == other_image
                && monitors.iter().any(|one| other_monitors.contains(one));
            same && !(*read_only && *other_read_only)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::fixtures::pod_from;
    use serde_json::{Value, json};

    #[test]
    fn disks_clash_unless_all_only_read() {
        let volume = |source: Value| {
            pod_from("p", json!({"volumes": [source]}))
                .shape
                .volumes
                .clone()
                .remove(0)
        };
        let gce = |name: &str, read_only: bool| {
            volume(json!({"gcePersistentDisk": {"pdName": name, "readOnly": read_only}}))
        };
        let aws = |id: &str| volume(json!({"awsElasticBlockStore": {"volumeID": id}}));
        let rbd = |monitor: &str| volume(json!({"rbd": {"monitors": [monitor], "image": "i"}}));
        let table = [
            (gce("a", false), gce("a", false), true),
            (gce("a", true), gce("a", true), false),
            (gce("a", true), gce("b", false), false),
            (aws("x"), aws("x"), true),
            (aws("x"), gce("x", false), false),
            (rbd("m"), rbd("m"), true),
            (rbd("m"), rbd("n"), false),
        ];
        for (wanted, held, expected) in table {
            assert_eq!(clashes(&wanted, &held), expected, "{wanted:?} {held:?}");
        }
    }
}
