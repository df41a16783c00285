//! The schema of a custom kind: a tree of nodes compiled from `openAPIV3Schema`, and what is done with bodies by it.
//!
//! Order of a write: `decode` (prune, note unknown and duplicate fields, apply defaults), later `validate` (types and value
//! validations, embedded metadata, list sets and maps, then the CEL rules). Mirrors apiextensions-apiserver's
//! pkg/apiserver/schema and its defaulting, pruning, listtype, objectmeta and cel packages.

mod decode;
mod defaults;
mod formats;
mod lists;
mod rules;
mod schema;
mod validate;

use serde_json::Value;

use super::json::JsonError;
use super::schema::Schema as Builtin;

pub use formats::parse_duration;
pub use rules::{RuleProblem, check_rules};
pub use schema::{Node, SchemaProblem, Type as NodeType};

/// What is wrong with one field. `reason` is a cause's reason, `message` what follows the path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub reason: &'static str,
    pub field: String,
    pub message: String,
}

/// What decoding a body found. Paths look like `spec.containers[0].image`.
#[derive(Debug, Default)]
pub struct Decoded {
    pub object: Value,
    pub unknown: Vec<String>,
    pub duplicate: Vec<String>,
    /// (path, message) of what makes the metadata no metadata at all.
    pub type_errors: Vec<(String, String)>,
}

/// What validation found; `warnings` are failures of rules whose values an update did not touch.
#[derive(Debug, Default)]
pub struct Verdict {
    pub failures: Vec<Failure>,
    pub warnings: Vec<String>,
}

/// The compiled schema of one version of a custom kind. Immutable, so any number of threads may use it.
#[derive(Debug)]
pub struct Structural {
    root: Node,
}

impl Structural {
    /// Compile an `openAPIV3Schema`. Fails when it is no JSON object.
    pub fn compile(json: &[u8]) -> Result<Self, SchemaProblem> {
        let value: Value = serde_json::from_slice(json)?;
        let root = Node::compile(&value)?;
        Ok(Self { root })
    }

    pub fn root(&self) -> &Node {
        &self.root
    }

    /// Read a body: pruned, with defaults. `builtin` has the definition of ObjectMeta.
    pub fn decode(&self, builtin: &Builtin, body: &[u8]) -> Result<Decoded, JsonError> {
        let mut decoded = decode::decode(&self.root, builtin, body)?;
        defaults::apply(&self.root, &mut decoded.object);
        Ok(decoded)
    }

    /// Apply the defaults to an object again, after somebody changed it.
    pub fn default(&self, object: &mut Value) {
        defaults::apply(&self.root, object);
    }

    /// Drop what the schema does not know from an object, after somebody changed it.
    pub fn prune(&self, object: &mut Value) {
        decode::prune_root(&self.root, object);
    }

    /// Check an object, with what it was before when this is an update.
    pub fn validate(&self, object: &Value, old: Option<&Value>) -> Verdict {
        let mut verdict = Verdict::default();
        validate::validate(&self.root, object, old, &mut verdict.failures);
        lists::embedded_metadata(&self.root, object, &mut verdict.failures);
        lists::sets_and_maps(&self.root, object, &mut verdict.failures);
        if !self.root.has_rules() {
            return verdict;
        }
        if validate::blocks_rules(&verdict.failures) {
            verdict.failures.push(Failure {
                reason: validate::INVALID,
                field: "<nil>".to_owned(),
                message: "Invalid value: \"null\": some validation rules were not checked because the object was invalid; \
                          correct the existing errors to complete validation"
                    .to_owned(),
            });
        } else {
            rules::evaluate(&self.root, object, old, &mut verdict);
        }
        verdict
    }
}
