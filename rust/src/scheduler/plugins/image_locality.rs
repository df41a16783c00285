//! ImageLocality: prefer nodes that have the pod's images, the more so the larger and the more widely spread they are.
//! Mirrors plugins/imagelocality.

use crate::scheduler::framework::{Cycle, MAX_NODE_SCORE, Plugin};

const MEBIBYTE: i64 = 1024 * 1024;
/// Less than this much on a node is not worth anything.
const MIN_BYTES: i64 = 23 * MEBIBYTE;
/// This much per image is worth a full score.
const MAX_BYTES_PER_IMAGE: i64 = 1000 * MEBIBYTE;

#[derive(Debug)]
pub struct ImageLocality;

impl Plugin for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }

    fn weight(&self) -> i64 {
        1
    }

    fn pre_score(&self, cycle: &Cycle<'_>, _feasible: &[usize]) -> bool {
        // Where no node has any of the images all would score zero.
        cycle.snapshot.has_images()
            && cycle
                .pod
                .images
                .iter()
                .any(|image| cycle.snapshot.image_nodes(image) > 0)
    }

    fn score(&self, cycle: &Cycle<'_>, node: usize) -> i64 {
        let Some(node) = cycle.snapshot.node(node) else {
            return 0;
        };
        let nodes = cycle.snapshot.len() as f64;
        let weigh = |image: &String| {
            let size = node.images.get(image).copied().unwrap_or(0);
            (size as f64 * (cycle.snapshot.image_nodes(image) as f64 / nodes)) as i64
        };
        let images = i64::try_from(cycle.pod.images.len()).unwrap_or(i64::MAX);
        priority(cycle.pod.images.iter().map(weigh).sum(), images)
    }
}

fn priority(bytes: i64, images: i64) -> i64 {
    let most = MAX_BYTES_PER_IMAGE.saturating_mul(images);
    if most <= MIN_BYTES {
        return 0;
    }
    MAX_NODE_SCORE * (bytes.clamp(MIN_BYTES, most) - MIN_BYTES) / (most - MIN_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::fixtures::{node_from, pod_from, snapshot};
    use serde_json::json;

    #[test]
    fn bytes_are_clamped_and_scaled_between_the_thresholds() {
        for (mebibytes, images, expected) in [
            (0, 1, 0),
            (23, 1, 0),
            (1000, 1, 100),
            (5000, 1, 100),
            (511, 1, 49),
            (1000, 2, 49),
        ] {
            assert_eq!(
                priority(mebibytes * MEBIBYTE, images),
                expected,
                "{mebibytes} {images}"
            );
        }
    }

    #[test]
    fn an_image_counts_by_size_and_by_the_share_of_nodes_that_have_it() {
        let image = json!({"allocatable": {}, "images": [{"names": ["app:latest", "app@sha256:1"], "sizeBytes": 1000 * MEBIBYTE}]});
        let snapshot = snapshot(vec![
            node_from(json!({"metadata": {"name": "a"}, "status": image})),
            node_from(json!({"metadata": {"name": "b"}})),
        ]);
        let pod = pod_from("p", json!({"containers": [{"name": "c", "image": "app"}]}));
        let cycle = Cycle {
            snapshot: &snapshot,
            pod: &pod,
        };
        assert!(ImageLocality.pre_score(&cycle, &[0, 1]));
        // Half of the nodes have it: 500 MiB count.
        assert_eq!(
            [0, 1].map(|node| ImageLocality.score(&cycle, node)),
            [48, 0]
        );
    }
}
