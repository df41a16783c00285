//! What upstream's Go types say of built-in kinds and their published schema does not: fields that are structs in place, lists that
//! are always written, and the defaults of fields that tell list items apart. Field managers compare typed objects, so these decide
//! whether `f:strategy` itself is owned or only what is in it.

use serde_json::Value;

use super::schema::{Implied, Object};

/// Structs in place wherever they appear.
const STRUCTS: [&str; 3] = ["metadata", "spec", "status"];
/// Other structs in place: type and its fields.
const STRUCTS_OF: [(&str, &[&str]); 52] = [
    ("AllocationResult", &["devices"]),
    ("Binding", &["target"]),
    ("ClusterRoleBinding", &["roleRef"]),
    ("Container", &["resources"]),
    ("ContainerResourceMetricSource", &["target"]),
    ("ContainerResourceMetricStatus", &["current"]),
    ("ContainerStatus", &["lastState", "state"]),
    ("CronJobSpec", &["jobTemplate"]),
    ("CustomResourceDefinitionSpec", &["names"]),
    ("CustomResourceDefinitionStatus", &["acceptedNames"]),
    ("DaemonSetSpec", &["template", "updateStrategy"]),
    ("DeploymentSpec", &["strategy", "template"]),
    ("DeviceTaintRuleSpec", &["taint"]),
    ("Endpoint", &["conditions"]),
    ("EphemeralContainer", &["resources"]),
    (
        "Event",
        &["deprecatedSource", "involvedObject", "regarding", "source"],
    ),
    ("ExternalMetricSource", &["metric", "target"]),
    ("ExternalMetricStatus", &["current", "metric"]),
    ("FlowSchemaSpec", &["priorityLevelConfiguration"]),
    ("HTTPIngressPath", &["backend"]),
    ("HorizontalPodAutoscalerSpec", &["scaleTargetRef"]),
    ("IngressServiceBackend", &["port"]),
    ("IngressStatus", &["loadBalancer"]),
    ("JobSpec", &["template"]),
    ("LimitedPriorityLevelConfiguration", &["limitResponse"]),
    ("MutatingWebhook", &["clientConfig"]),
    ("NetworkPolicySpec", &["podSelector"]),
    ("NodeDaemonEndpoints", &["kubeletEndpoint"]),
    ("NodeStatus", &["daemonEndpoints", "nodeInfo"]),
    (
        "ObjectMetricSource",
        &["describedObject", "metric", "target"],
    ),
    (
        "ObjectMetricStatus",
        &["current", "describedObject", "metric"],
    ),
    ("PersistentVolumeClaimSpec", &["resources"]),
    ("PodGroupSpec", &["schedulingPolicy"]),
    ("PodGroupTemplate", &["schedulingPolicy"]),
    ("PodTemplate", &["template"]),
    ("PodsMetricSource", &["metric", "target"]),
    ("PodsMetricStatus", &["current", "metric"]),
    ("PreferredSchedulingTerm", &["preference"]),
    ("ReplicaSetSpec", &["template"]),
    ("ResourceClaimSpec", &["devices"]),
    ("ResourceMetricSource", &["target"]),
    ("ResourceMetricStatus", &["current"]),
    ("ResourceSliceSpec", &["pool"]),
    ("RoleBinding", &["roleRef"]),
    ("SelfSubjectReviewStatus", &["userInfo"]),
    ("ServiceStatus", &["loadBalancer"]),
    ("StatefulSetSpec", &["template", "updateStrategy"]),
    ("StorageVersionMigrationSpec", &["resource"]),
    ("TokenReviewStatus", &["user"]),
    ("ValidatingWebhook", &["clientConfig"]),
    ("VolumeAttachmentSpec", &["source"]),
    ("WeightedPodAffinityTerm", &["podAffinityTerm"]),
];
/// Structs that are pointers although their name says otherwise.
const POINTERS: [(&str, &str); 1] = [("CustomResourceSubresources", "status")];
/// Type, field and default of fields that are keys of a list.
const KEY_DEFAULTS: [(&str, &str, &str); 2] = [
    ("ContainerPort", "protocol", "TCP"),
    ("ServicePort", "protocol", "TCP"),
];
const BUILT_IN: &str = "io.k8s.";

/// Complete the fields of the definition `name`, if it is a built-in one.
pub(super) fn imply(name: &str, definition: &Value, object: &mut Object) {
    if !name.starts_with(BUILT_IN) {
        return;
    }
    let kind = object.go_name.clone();
    let structs = STRUCTS_OF
        .binary_search_by(|(name, _)| (*name).cmp(kind.as_str()))
        .ok()
        .and_then(|at| STRUCTS_OF.get(at))
        .map_or(&[][..], |(_, fields)| *fields);
    let required: Vec<&str> = definition
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    for field in &mut object.fields {
        let schema = definition
            .get("properties")
            .and_then(|properties| properties.get(&*field.name));
        let is = |keyword: &str, value: &str| {
            schema
                .and_then(|schema| schema.get(keyword))
                .and_then(Value::as_str)
                == Some(value)
        };
        let name = &*field.name;
        let is_struct = schema.is_some_and(|schema| schema.get("$ref").is_some())
            && (STRUCTS.contains(&name) || structs.contains(&name))
            && !POINTERS.contains(&(kind.as_str(), name));
        if is_struct {
            field.implied = Implied::Struct;
        } else if is("type", "array") && required.contains(&name) {
            field.implied = Implied::List;
        }
        let default = KEY_DEFAULTS
            .iter()
            .find(|(of, key, _)| *of == kind && *key == name);
        if let Some((_, _, value)) = default {
            field.default = Some(Value::from(*value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::STRUCTS_OF;

    #[test]
    fn types_are_listed_in_order_for_searching() {
        assert!(STRUCTS_OF.is_sorted_by(|left, right| left.0 < right.0));
    }
}
