//! What the engine remembers from one decision to the next, held against an engine that begins with every decision.

use serde_json::{Value, json};

use super::engine::{Decision, Engine};
use super::fixtures::{node_from, pod_from_with_labels};
use super::pod::Pod;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const ZONE: &str = "topology.kubernetes.io/zone";
const HOSTNAME: &str = "kubernetes.io/hostname";

struct Draw(u64);

impl Draw {
    fn below(&mut self, limit: usize) -> usize {
        let next = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = next.wrapping_add(1);
        (self.0 >> 33) as usize % limit
    }

    fn one<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

fn engine(nodes: usize) -> Engine {
    let mut engine = Engine::default();
    for at in 0..nodes {
        let mut labels = json!({HOSTNAME: format!("n{at}"), ZONE: format!("z{}", at % 3)});
        if at % 7 == 6 {
            labels = json!({HOSTNAME: format!("n{at}")});
        }
        let has = json!({"cpu": "8", "memory": "16Gi", "pods": "20", "example.com/gpu": format!("{}", at % 3)});
        let node = json!({"metadata": {"name": format!("n{at}"), "labels": labels}, "status": {"allocatable": has}});
        engine.snapshot.upsert_node(node_from(node));
    }
    engine
}

/// What pods of each kind ask for beside resources.
fn rules(app: &str) -> Vec<Value> {
    let selector = json!({"matchLabels": {"app": app}});
    let near = |kind: &str, key: &str| {
        let term = json!({"topologyKey": key, "labelSelector": selector});
        json!({"affinity": {kind: {REQUIRED: [term]}}})
    };
    let even = |key: &str, when: &str| {
        let rule = json!({"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": when, "labelSelector": selector});
        json!({"topologySpreadConstraints": [rule]})
    };
    vec![
        json!({}),
        near("podAntiAffinity", HOSTNAME),
        near("podAntiAffinity", ZONE),
        near("podAffinity", ZONE),
        even(ZONE, "DoNotSchedule"),
        even(HOSTNAME, "DoNotSchedule"),
        even(ZONE, "ScheduleAnyway"),
        even(HOSTNAME, "ScheduleAnyway"),
    ]
}

fn pod(name: &str, app: &str, rule: &Value, requests: &Value, priority: i32) -> Pod {
    let container = json!({"name": "c", "resources": {"requests": requests}});
    let mut spec = json!({"priority": priority, "containers": [container]});
    for (key, value) in rule.as_object().unwrap() {
        spec[key] = value.clone();
    }
    pod_from_with_labels(name, json!({"app": app}), spec)
}

/// Node, message, nominated node and victims.
fn told(decision: Decision) -> (String, String, String, Vec<String>) {
    match decision.result {
        Ok(node) => (node, String::new(), String::new(), Vec::new()),
        Err(refusal) => (
            String::new(),
            refusal.diagnosis.message(),
            refusal.nominated,
            refusal.victims.into_iter().map(|(key, _)| key).collect(),
        ),
    }
}

#[test]
fn every_decision_is_that_of_an_engine_that_remembers_nothing() {
    for seed in 1..9 {
        let mut draw = Draw(seed);
        let nodes = 3 + draw.below(90);
        let mut old = engine(nodes);
        let mut placed: Vec<Pod> = Vec::new();
        let kinds: Vec<(&str, Value)> = ["a", "b"]
            .into_iter()
            .flat_map(|app| rules(app).into_iter().map(move |rule| (app, rule)))
            .collect();
        for turn in 0..150 {
            if !placed.is_empty() && draw.below(5) == 0 {
                let gone = placed.swap_remove(draw.below(placed.len()));
                old.remove("Pod", &[gone.key()]);
                continue;
            }
            let (app, rule) = draw.one(&kinds).clone();
            let wants = [
                json!({"cpu": "1"}),
                json!({"cpu": "3", "memory": "4Gi"}),
                json!({"example.com/gpu": "1"}),
            ];
            let one = pod(&format!("p{turn}"), app, &rule, draw.one(&wants), 0);
            let mut new = engine(nodes);
            for other in &placed {
                new.snapshot.upsert_pod(other.clone());
            }
            let found = told(old.schedule(vec![one.clone()], 0).remove(0));
            let expected = told(new.schedule(vec![one.clone()], 0).remove(0));
            assert_eq!(found, expected, "seed {seed}, turn {turn}, {rule}");
            if !found.0.is_empty() {
                let bound = Pod {
                    node_name: found.0,
                    ..one
                };
                old.snapshot.upsert_pod(bound.clone());
                placed.push(bound);
            }
        }
    }
}

/// A budget that covers no pod keeps the engine from looking for victims by numbers alone.
#[test]
fn victims_found_by_numbers_are_those_that_all_filters_find() {
    let budget = json!({"kind": "PodDisruptionBudget", "metadata": {"name": "b", "namespace": "elsewhere"},
        "spec": {"selector": {"matchLabels": {"app": "x"}}}, "status": {"disruptionsAllowed": 0}});
    let wants = [
        json!({"cpu": "2"}),
        json!({"memory": "3Gi"}),
        json!({"cpu": "1", "example.com/gpu": "1"}),
        json!({"cpu": "6", "example.com/gpu": "2"}),
        json!({"cpu": "1", "example.com/none": "1"}),
    ];
    let mut victims = 0;
    for seed in 1..30 {
        let mut draw = Draw(seed);
        let nodes = 2 + draw.below(12);
        let (mut plain, mut whole) = (engine(nodes), engine(nodes));
        let budget = budget.to_string();
        whole.snapshot.cluster.upsert(budget.as_bytes()).unwrap();
        for turn in 0..80 {
            let priority = draw.below(4) as i32;
            let one = pod(
                &format!("p{turn}"),
                "a",
                &json!({}),
                draw.one(&wants),
                priority,
            );
            let found = told(plain.schedule(vec![one.clone()], 0).remove(0));
            let expected = told(whole.schedule(vec![one.clone()], 0).remove(0));
            assert_eq!(found, expected, "seed {seed}, turn {turn}");
            victims += found.3.len();
            for one in [&mut plain, &mut whole] {
                one.remove("Pod", &found.3);
                one.snapshot
                    .withdraw_nomination(&format!("default/p{turn}"));
            }
        }
    }
    assert!(victims > 100, "only {victims} pods had to go");
}
