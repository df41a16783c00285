//! Field management on a small schema: each kind of list and map, and who owns what after each write.

use serde_json::{Value, json};

use proptest::prelude::*;

use super::remembered::Remembered;
use super::update::{track_created, tracked};
use super::value::Value as Borrowed;
use super::{Applied, ApplyError, Conflict, Type, Write, apply, overlay, track};
use crate::api::schema::Schema;

const VERSION: &str = "test/v1";

fn schema() -> Schema {
    let definitions = json!({
        "Thing": {
            "type": "object",
            "properties": {
                "apiVersion": {"type": "string"},
                "kind": {"type": "string"},
                "metadata": {"type": "object", "properties": {
                    "name": {"type": "string"},
                    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                    "annotations": {"type": "object", "additionalProperties": {"type": "string"}}
                }},
                "count": {"type": "integer"},
                "note": {"type": "string"},
                "inner": {"$ref": "#/definitions/Inner"},
                "whole": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": {"type": "string"}},
                "words": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
                "lines": {"type": "array", "items": {"type": "string"}},
                "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port", "protocol"],
                    "items": {"$ref": "#/definitions/Port"}},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                "spec": {"$ref": "#/definitions/Thing"},
                "status": {"type": "object", "properties": {"phase": {"type": "string"}}}
            }
        },
        "Inner": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}},
        "Port": {"type": "object", "properties": {
            "port": {"type": "integer"},
            "protocol": {"type": "string", "default": "TCP"},
            "name": {"type": "string"}
        }}
    });
    Schema::compile(definitions.to_string().as_bytes()).unwrap()
}

#[test]
fn a_configuration_laid_over_an_object_merges_by_keys_and_replaces_nothing_as_a_whole() {
    let schema = schema();
    let of = Type::Node(schema.definition("Thing").unwrap());
    let live = json!({
        "metadata": {"name": "a", "labels": {"x": "1"}},
        "ports": [{"port": 80, "protocol": "TCP", "name": "web"}, {"port": 53, "protocol": "UDP"}],
        "words": ["one"], "lines": ["first"], "whole": {"k": "v"}, "count": 1
    })
    .to_string();
    let over = |config: Value| {
        let found = overlay(&schema, of, &live, &config.to_string())?;
        Ok::<Value, String>(serde_json::from_slice(&found).unwrap())
    };
    let merged = over(json!({
        "metadata": {"labels": {"y": "2"}},
        "ports": [{"port": 53, "protocol": "UDP", "name": "dns"}, {"port": 443, "protocol": "TCP"}],
        "words": ["two"]
    }));
    let expected = json!({
        "metadata": {"name": "a", "labels": {"x": "1", "y": "2"}},
        "ports": [
            {"port": 80, "protocol": "TCP", "name": "web"},
            {"port": 53, "protocol": "UDP", "name": "dns"},
            {"port": 443, "protocol": "TCP"}
        ],
        "words": ["one", "two"], "lines": ["first"], "whole": {"k": "v"}, "count": 1
    });
    assert_eq!(merged.unwrap(), expected);
    let wholes = over(json!({"lines": ["second"], "spec": {"whole": {"k": "w"}}}));
    assert_eq!(
        wholes.unwrap_err(),
        "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: .lines, .spec.whole"
    );
    let unfit = over(json!({"unheard": 1}));
    assert_eq!(
        unfit.unwrap_err(),
        "failed to convert patch object to typed object: .unheard: field not declared in schema"
    );
}

/// An object with its managers, changed as the API server would.
struct Thing {
    schema: Schema,
    of: Type,
    object: Option<Value>,
    time: u32,
}

impl Thing {
    fn new() -> Self {
        let schema = schema();
        let of = Type::Node(schema.definition("Thing").unwrap());
        Self {
            schema,
            of,
            object: None,
            time: 0,
        }
    }

    fn deduced() -> Self {
        Self {
            of: Type::Deduced,
            ..Self::new()
        }
    }

    fn write<T>(
        &mut self,
        manager: &str,
        subresource: &str,
        act: impl FnOnce(&Write<'_>) -> T,
    ) -> T {
        self.time += 1;
        let now = format!("2026-01-01T00:00:{:02}Z", self.time);
        let reset: &[&str] = if subresource.is_empty() {
            &["status"]
        } else {
            &["count", "inner"]
        };
        act(&Write {
            schema: &self.schema,
            of: self.of,
            manager,
            subresource,
            api_version: VERSION,
            now: &now,
            reset,
            only: &[],
        })
    }

    fn update_through(&mut self, subresource: &str, manager: &str, mut object: Value) {
        let live = self.object.as_ref().map(Value::to_string);
        let managed = self
            .write(manager, subresource, |write| {
                track(write, live.as_deref(), &object.to_string())
            })
            .unwrap();
        set_managed(&mut object, &managed);
        self.object = Some(object);
    }

    fn update(&mut self, manager: &str, object: Value) {
        self.update_through("", manager, object);
    }

    fn try_apply(&mut self, manager: &str, config: Value, force: bool) -> Result<(), ApplyError> {
        let live = self.object.as_ref().map(Value::to_string);
        let Applied {
            object,
            managed_fields,
        } = self.write(manager, "", |write| {
            apply(write, live.as_deref(), &config.to_string(), force)
        })?;
        let mut object: Value = serde_json::from_slice(&object).unwrap();
        set_managed(&mut object, &managed_fields);
        self.object = Some(object);
        Ok(())
    }

    fn apply(&mut self, manager: &str, config: Value) {
        self.try_apply(manager, config, false).unwrap();
    }

    fn conflicts(&mut self, manager: &str, config: Value) -> Vec<(String, String)> {
        match self.try_apply(manager, config, false) {
            Err(ApplyError::Conflicts(found)) => found
                .into_iter()
                .map(|Conflict { manager, path }| (manager, path))
                .collect(),
            other => panic!("no conflict: {other:?}"),
        }
    }

    /// The object without metadata.
    fn body(&self) -> Value {
        let mut object = self.object.clone().unwrap();
        object.as_object_mut().unwrap().shift_remove("metadata");
        object
    }

    /// What a manager owns.
    fn owned(&self, manager: &str) -> Value {
        self.entry(manager)
            .map_or(Value::Null, |entry| entry["fieldsV1"].clone())
    }

    fn entry(&self, manager: &str) -> Option<Value> {
        let managed = self.object.as_ref()?["metadata"]["managedFields"].clone();
        let entries = managed.as_array()?.clone();
        entries
            .into_iter()
            .find(|entry| entry["manager"] == manager)
    }

    fn managers(&self) -> Vec<String> {
        let object = self.object.as_ref().unwrap();
        let entries = object["metadata"]["managedFields"].as_array();
        entries
            .into_iter()
            .flatten()
            .map(|entry| entry["manager"].as_str().unwrap().to_owned())
            .collect()
    }
}

fn set_managed(object: &mut Value, managed: &[u8]) {
    if managed.is_empty() {
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.shift_remove("managedFields");
        }
        return;
    }
    object["metadata"]["managedFields"] = serde_json::from_slice(managed).unwrap();
}

#[test]
fn a_creator_owns_what_it_sent_and_the_containers_it_made() {
    let mut thing = Thing::new();
    thing.update(
        "maker",
        json!({"kind": "Thing", "metadata": {"name": "x", "labels": {"l": "1"}}, "count": 1, "inner": {"a": "1"}, "status": {"phase": "up"}}),
    );
    assert_eq!(
        thing.owned("maker"),
        json!({
            "f:count": {},
            "f:inner": {".": {}, "f:a": {}},
            "f:metadata": {"f:labels": {".": {}, "f:l": {}}}
        })
    );
}

#[test]
fn an_update_takes_what_it_changes_and_leaves_the_rest() {
    let mut thing = Thing::new();
    thing.update("one", json!({"metadata": {}, "count": 1, "note": "a"}));
    thing.update(
        "two",
        json!({"metadata": thing.object.as_ref().unwrap()["metadata"], "count": 2, "note": "a"}),
    );
    assert_eq!(thing.owned("one"), json!({"f:note": {}}));
    assert_eq!(thing.owned("two"), json!({"f:count": {}}));
    let before = thing.entry("one").unwrap();
    thing.update("three", json!({"metadata": {}, "count": 2, "note": "a"}));
    assert_eq!(thing.managers(), ["one", "two"]);
    assert_eq!(
        thing.entry("one").unwrap(),
        before,
        "no time moves without a change"
    );
}

#[test]
fn status_is_owned_through_its_subresource_only() {
    let mut thing = Thing::new();
    thing.update("user", json!({"metadata": {}, "count": 1}));
    thing.update_through(
        "status",
        "controller",
        json!({"metadata": {}, "count": 9, "status": {"phase": "up"}}),
    );
    assert_eq!(
        thing.owned("controller"),
        json!({"f:status": {".": {}, "f:phase": {}}})
    );
    assert_eq!(thing.entry("controller").unwrap()["subresource"], "status");
    assert_eq!(thing.owned("user"), json!({"f:count": {}}));
}

#[test]
fn managed_fields_can_be_given_and_cleared() {
    let mut thing = Thing::new();
    thing.update("one", json!({"metadata": {}, "count": 1}));
    thing.update(
        "two",
        json!({"metadata": {"managedFields": [{}]}, "count": 1}),
    );
    assert_eq!(thing.managers(), Vec::<String>::new());
    thing.update("two", json!({"metadata": {}, "count": 2}));
    assert_eq!(
        thing.managers(),
        Vec::<String>::new(),
        "who is not tracked stays untracked"
    );
    thing.apply("three", json!({"note": "n"}));
    assert_eq!(thing.owned("before-first-apply"), json!({"f:count": {}}));
    assert_eq!(thing.owned("three"), json!({"f:note": {}}));
}

#[test]
fn no_more_than_ten_updaters_are_remembered() {
    let mut thing = Thing::new();
    thing.update("m0", json!({"metadata": {}, "free": {"k0": 0}}));
    for at in 1..13 {
        let mut next = thing.object.clone().unwrap();
        next["free"][format!("k{at}")] = json!(at);
        thing.update(&format!("m{at}"), next);
    }
    let managers = thing.managers();
    assert_eq!(managers.len(), 10);
    assert_eq!(managers[0], "ancient-changes");
    let kept = thing.owned("ancient-changes");
    assert!(kept["f:free"]["f:k0"].is_object() && kept["f:free"]["f:k3"].is_object());
}

#[test]
fn applying_removes_what_was_applied_before_and_nothing_else() {
    let mut thing = Thing::new();
    thing.apply(
        "a",
        json!({"metadata": {"labels": {"x": "1", "y": "2"}}, "count": 1, "inner": {"a": "1"}}),
    );
    thing.update("u", {
        let mut next = thing.object.clone().unwrap();
        next["inner"]["b"] = json!("kept");
        next
    });
    thing.apply("a", json!({"metadata": {"labels": {"x": "1"}}}));
    assert_eq!(thing.body(), json!({"inner": {"b": "kept"}}));
    assert_eq!(
        thing.object.as_ref().unwrap()["metadata"]["labels"],
        json!({"x": "1"})
    );
    assert_eq!(
        thing.owned("a"),
        json!({"f:metadata": {"f:labels": {"f:x": {}}}})
    );
    thing.apply("a", json!({}));
    assert_eq!(thing.managers(), ["u"]);
}

#[test]
fn a_value_that_two_apply_alike_is_shared_and_stays_until_both_let_go() {
    let mut thing = Thing::new();
    thing.apply("a", json!({"count": 1}));
    thing.apply("b", json!({"count": 1}));
    assert_eq!(
        (thing.owned("a"), thing.owned("b")),
        (json!({"f:count": {}}), json!({"f:count": {}}))
    );
    thing.apply("a", json!({}));
    assert_eq!(thing.body(), json!({"count": 1}));
    thing.apply("b", json!({}));
    assert_eq!(thing.body(), json!({}));
}

#[test]
fn a_field_of_another_manager_is_a_conflict_unless_forced() {
    let mut thing = Thing::new();
    thing.update("kubectl", json!({"metadata": {}, "count": 1, "note": "n"}));
    thing.apply("b", json!({"inner": {"a": "1"}}));
    let wanted = json!({"count": 2, "inner": {"a": "2"}});
    assert_eq!(
        thing.conflicts("c", wanted.clone()),
        [
            ("\"b\"".to_owned(), ".inner.a".to_owned()),
            ("\"kubectl\" using test/v1".to_owned(), ".count".to_owned())
        ]
    );
    thing.try_apply("c", wanted, true).unwrap();
    assert_eq!(
        thing.body(),
        json!({"count": 2, "note": "n", "inner": {"a": "2"}})
    );
    assert_eq!(thing.managers(), ["c", "kubectl"]);
    assert_eq!(thing.owned("kubectl"), json!({"f:note": {}}));
}

#[test]
fn kubectl_takes_over_what_it_applied_from_the_client_side() {
    let mut thing = Thing::new();
    let applied = json!({"apiVersion": VERSION, "count": 1}).to_string();
    let annotation = "kubectl.kubernetes.io/last-applied-configuration";
    let live = json!({"apiVersion": VERSION, "metadata": {"annotations": {annotation: applied}}, "count": 1, "note": "other"});
    thing.update("kubectl-client-side-apply", live);
    let disputed = thing.conflicts(
        "kubectl",
        json!({"apiVersion": VERSION, "count": 2, "note": "mine"}),
    );
    assert_eq!(
        disputed,
        [(
            "\"kubectl-client-side-apply\" using test/v1".to_owned(),
            ".note".to_owned()
        )]
    );
    thing.apply("kubectl", json!({"apiVersion": VERSION, "count": 2}));
    let annotations = thing.object.as_ref().unwrap()["metadata"]["annotations"].clone();
    assert_eq!(
        annotations[annotation],
        json!({"apiVersion": VERSION, "count": 2}).to_string() + "\n"
    );
}

#[test]
fn lists_merge_by_their_keys_and_a_missing_key_means_its_default() {
    let mut thing = Thing::new();
    thing.apply("a", json!({"ports": [{"port": 80, "name": "web"}]}));
    thing.apply("b", json!({"ports": [{"port": 80, "protocol": "TCP", "name": "web"}, {"port": 53, "protocol": "UDP"}]}));
    assert_eq!(
        thing.owned("a"),
        json!({"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:name": {}, "f:port": {}}}})
    );
    thing.apply("b", json!({"ports": [{"port": 53, "protocol": "UDP"}]}));
    assert_eq!(
        thing.body(),
        json!({"ports": [{"port": 80, "name": "web"}, {"port": 53, "protocol": "UDP"}]})
    );
}

#[test]
fn each_item_of_a_set_has_its_own_owners() {
    let mut thing = Thing::new();
    thing.apply("a", json!({"words": ["x", "y"]}));
    thing.apply("b", json!({"words": ["y", "z"]}));
    assert_eq!(thing.body(), json!({"words": ["x", "y", "z"]}));
    thing.apply("a", json!({"words": []}));
    assert_eq!(thing.body(), json!({"words": ["y", "z"]}));
    assert_eq!(
        thing.owned("b"),
        json!({"f:words": {"v:\"y\"": {}, "v:\"z\"": {}}})
    );
}

#[test]
fn atomic_lists_and_maps_are_owned_as_a_whole() {
    let mut thing = Thing::new();
    thing.apply("a", json!({"lines": ["1"], "whole": {"x": "1"}}));
    assert_eq!(thing.owned("a"), json!({"f:lines": {}, "f:whole": {}}));
    assert_eq!(
        thing.conflicts("b", json!({"lines": ["2"], "whole": {"y": "1"}})),
        [
            ("\"a\"".to_owned(), ".lines".to_owned()),
            ("\"a\"".to_owned(), ".whole".to_owned())
        ]
    );
}

#[test]
fn without_a_schema_maps_merge_and_lists_do_not() {
    let mut thing = Thing::deduced();
    thing.apply("a", json!({"spec": {"a": 1, "list": [{"name": "x"}]}}));
    thing.apply("b", json!({"spec": {"b": 2}}));
    assert_eq!(
        thing.body(),
        json!({"spec": {"a": 1, "list": [{"name": "x"}], "b": 2}})
    );
    assert_eq!(
        thing.conflicts("b", json!({"spec": {"b": 2, "list": [{"name": "y"}]}})),
        [("\"a\"".to_owned(), ".spec.list".to_owned())]
    );
    thing.apply("a", json!({}));
    assert_eq!(thing.body(), json!({"spec": {"b": 2}}));
}

#[test]
fn a_configuration_that_does_not_fit_is_refused_with_all_its_problems() {
    let table = [
        (json!({"nope": 1}), ".nope: field not declared in schema"),
        (
            json!({"count": "many"}),
            ".count: expected numeric (int or float), got string",
        ),
        (json!({"inner": []}), ".inner: expected map, got &{[]}"),
        (
            json!({"words": ["a", "a"]}),
            ".words: duplicate entries for key [=\"a\"]",
        ),
        (
            json!({"ports": [{"port": 1}, {"port": 1, "protocol": "TCP"}]}),
            ".ports: duplicate entries for key [port=1,protocol=\"TCP\"]",
        ),
        (
            json!({"nope": 1, "inner": {"c": 1}}),
            "errors:\n  .nope: field not declared in schema\n  .inner.c: field not declared in schema",
        ),
    ];
    for (config, message) in table {
        let found = Thing::new().try_apply("a", config.clone(), false);
        assert_eq!(
            found,
            Err(ApplyError::Config(message.to_owned())),
            "{config}"
        );
    }
}

#[test]
fn applying_again_changes_nothing_not_even_a_time() {
    let mut thing = Thing::new();
    let config = json!({"count": 1, "ports": [{"port": 1}], "words": ["a"], "inner": {"a": "1"}, "free": {"x": {"y": [1]}}});
    thing.apply("a", config.clone());
    let once = thing.object.clone();
    thing.apply("a", config);
    assert_eq!(thing.object, once);
}

#[test]
fn order_follows_the_configuration_where_it_says_something_and_the_object_elsewhere() {
    let table: [(&[&str], &[&str], &[&str]); 5] = [
        (&["a", "b", "c"], &["c", "d"], &["a", "b", "c", "d"]),
        (&["a", "b", "c"], &["c", "a"], &["b", "c", "a"]),
        (&["a", "b"], &["x", "b"], &["a", "x", "b"]),
        (&["a"], &["x", "y"], &["a", "x", "y"]),
        (&["a", "b", "c"], &["b"], &["a", "b", "c"]),
    ];
    for (live, config, merged) in table {
        let mut thing = Thing::new();
        thing.update("u", json!({"metadata": {}, "words": live}));
        thing.apply("a", json!({"words": config}));
        assert_eq!(
            thing.body(),
            json!({"words": merged}),
            "{live:?} {config:?}"
        );
    }
}

/// Objects of a few fields with few values, so that two of them have much in common.
fn things() -> impl Strategy<Value = Value> {
    let map = |max| prop::collection::btree_map("[ab]", "[xy]", 0..max);
    let ports = prop::collection::vec((1..3i64, "[xy]"), 0..3);
    let words = prop::collection::vec("[pq]", 0..3);
    let free = prop::option::of((map(3), prop::collection::vec(0..2i64, 0..2)));
    (map(3), map(3), prop::option::of(map(3)), ports, words, free).prop_map(
        |(labels, inner, whole, ports, words, free)| {
            let ports: Vec<_> = ports
                .into_iter()
                .map(|(port, name)| json!({"port": port, "name": name}))
                .collect();
            let mut thing = json!({"apiVersion": VERSION, "kind": "Thing", "metadata": {"name": "t", "labels": labels},
                "inner": inner, "ports": ports, "words": words});
            for (name, value) in [("whole", json!(whole)), ("free", json!(free))] {
                if !value.is_null() {
                    thing[name] = value;
                }
            }
            thing
        },
    )
}

proptest! {
    #[test]
    fn reading_only_what_differs_tracks_the_same_as_reading_all(first in things(), second in things(), third in things()) {
        let schema = schema();
        let of = Type::Node(schema.definition("Thing").unwrap());
        let write = |manager| Write {
            schema: &schema, of, manager, subresource: "", api_version: VERSION, now: "2026-01-01T00:00:00Z", reset: &[], only: &[],
        };
        let mut live = first;
        live["metadata"]["managedFields"] = serde_json::from_slice(&track(&write("a"), None, &live.to_string()).unwrap()).unwrap();
        for (manager, next) in [("b", second), ("a", third.clone()), ("b", third)] {
            let mut new = next;
            new["metadata"]["managedFields"] = live["metadata"]["managedFields"].clone();
            let (before, after) = (live.to_string(), new.to_string());
            let all = (Borrowed::parse(&before).unwrap(), Borrowed::parse(&after).unwrap());
            let expected = tracked(&write(manager), true, all.0, all.1).unwrap();
            let found = track(&write(manager), Some(&before), &after).unwrap();
            prop_assert_eq!(String::from_utf8(found.clone()).unwrap(), String::from_utf8(expected).unwrap());
            new["metadata"]["managedFields"] = serde_json::from_slice(&found).unwrap();
            live = new;
        }
    }

    // What naming everything again may skip is held against the long way by an assertion in `apply`.
    #[test]
    fn applying_again_and_with_more_keeps_what_all_managers_applied(first in things(), second in things(), third in things()) {
        let schema = schema();
        let of = Type::Node(schema.definition("Thing").unwrap());
        let write = |manager| Write {
            schema: &schema, of, manager, subresource: "", api_version: VERSION, now: "2026-01-01T00:00:00Z", reset: &[], only: &[],
        };
        let mut live: Option<String> = None;
        for (manager, config) in [("a", &first), ("b", &second), ("a", &first), ("b", &third), ("a", &third), ("b", &third)] {
            let Ok(applied) = apply(&write(manager), live.as_deref(), &config.to_string(), true) else {
                return Ok(());
            };
            let mut object: Value = serde_json::from_slice(&applied.object).unwrap();
            object["metadata"]["managedFields"] = serde_json::from_slice(&applied.managed_fields).unwrap();
            for (name, value) in config["inner"].as_object().unwrap() {
                prop_assert_eq!(&object["inner"][name], value);
            }
            live = Some(object.to_string());
        }
    }
}

proptest! {
    #[test]
    fn a_spec_that_was_created_before_is_owned_as_if_it_were_new(first in things(), second in things()) {
        let schema = schema();
        let of = Type::Node(schema.definition("Thing").unwrap());
        for of in [of, Type::Deduced] {
            let remembered = Remembered::default();
            let write = Write {
                schema: &schema, of, manager: "a", subresource: "", api_version: VERSION, now: "2026-01-01T00:00:00Z",
                reset: &["status"], only: &[],
            };
            for round in 0..4 {
                for spec in [&first, &second, &first["words"], &Value::Null] {
                    let labels = json!({format!("l{round}"): "x"});
                    let thing = json!({"apiVersion": VERSION, "kind": "Thing", "metadata": {"name": "t", "labels": labels},
                        "words": second["words"], "spec": spec, "status": {"a": 1}, "z": round});
                    let text = thing.to_string();
                    let expected = track(&write, None, &text).unwrap();
                    let found = track_created(&write, &text, &remembered).unwrap();
                    prop_assert_eq!(String::from_utf8(found).unwrap(), String::from_utf8(expected).unwrap());
                }
            }
            prop_assert!(remembered.get(&first.to_string()).is_some());
        }
    }
}
