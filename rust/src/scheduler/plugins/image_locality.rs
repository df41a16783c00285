//! ImageLocality: prefer nodes that have the pod's images, the more so the larger and the more widely spread they are.
//! Mirrors plugins/imagelocality.

use std::collections::HashMap;

use crate::scheduler::framework::MAX_NODE_SCORE;
use crate::scheduler::pod::Shape;

const MEBIBYTE: i64 = 1024 * 1024;
/// Less than this much on a node is not worth anything.
const MIN_BYTES: i64 = 23 * MEBIBYTE;
/// This much per image is worth a full score.
const MAX_BYTES_PER_IMAGE: i64 = 1000 * MEBIBYTE;

/// `on_node` has the size of each image and the number of nodes that have it; `nodes` is how many there are.
pub fn score(shape: &Shape, on_node: &HashMap<String, (i64, i64)>, nodes: usize) -> i64 {
    if on_node.is_empty() {
        return 0;
    }
    let weigh = |image: &String| {
        let (size, having) = on_node.get(image).copied().unwrap_or((0, 0));
        (size as f64 * (having as f64 / nodes as f64)) as i64
    };
    let images = i64::try_from(shape.images.len()).unwrap_or(i64::MAX);
    priority(shape.images.iter().map(weigh).sum(), images)
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
    use crate::scheduler::fixtures::pod_from;
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
        let shape = pod_from("p", json!({"containers": [{"name": "c", "image": "app"}]})).shape;
        let here = HashMap::from([("app:latest".to_string(), (1000 * MEBIBYTE, 1))]);
        // Half of the nodes have it: 500 MiB count.
        assert_eq!(score(&shape, &here, 2), 48);
        assert_eq!(score(&shape, &HashMap::new(), 2), 0);
    }
}
