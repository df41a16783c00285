//! KubeSchedulerConfiguration: which plugins run, with which weights and arguments. Mirrors kubescheduler.config.k8s.io/v1.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::framework::Plugin;
use super::labels::Labels;
use super::pod::{Preference, SpreadConstraint, spread_constraint};
use super::selector::Term;
use super::wire::{self, wire_struct};

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration: {0}")]
    Unreadable(#[from] serde_json::Error),
    #[error("no kind {kind:?} is registered for version {version:?}")]
    Kind { kind: String, version: String },
    #[error("{path}: Invalid value: {value:?}: {why}")]
    Invalid {
        path: String,
        value: String,
        why: &'static str,
    },
    #[error("{path}: Duplicate value: {value:?}")]
    Duplicate { path: String, value: String },
}

/// What a scheduler does.
#[derive(Debug, Clone)]
pub struct Configuration {
    pub profiles: Vec<Profile>,
}

#[derive(Debug, Clone)]
pub struct Profile {
    pub scheduler_name: String,
    /// 0 looks at a share that shrinks with the cluster, as kube-scheduler does by default; 100 looks at all nodes.
    pub percentage: i32,
    /// In the order in which they are asked.
    pub filters: Vec<Plugin>,
    pub scorers: Vec<(Plugin, i64)>,
    pub preempts: bool,
    pub fit: FitArgs,
    /// The resources whose balance counts.
    pub balanced: Vec<String>,
    /// What a utilisation of storage in percent is worth to VolumeBinding, 0 to 100.
    pub storage_points: Vec<(i64, i64)>,
    pub added_required: Option<Vec<Term>>,
    pub added_preferences: Vec<Preference>,
    pub hard_pod_affinity_weight: i64,
    pub ignores_preferred_terms_of_existing_pods: bool,
    pub default_constraints: Vec<SpreadConstraint>,
    /// The default constraints are the built-in ones, which do not ask for a zone label.
    pub is_system_defaulted: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct FitArgs {
    pub strategy: Strategy,
    pub resources: Vec<(String, i64)>,
    pub ignored_resources: BTreeSet<String>,
    pub ignored_groups: BTreeSet<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Strategy {
    LeastAllocated,
    MostAllocated,
    /// Points of (utilisation, score), both in 0..=100.
    RequestedToCapacityRatio(Vec<(i64, i64)>),
}

impl Default for FitArgs {
    fn default() -> Self {
        FitArgs {
            strategy: Strategy::LeastAllocated,
            resources: vec![("cpu".into(), 1), ("memory".into(), 1)],
            ignored_resources: BTreeSet::new(),
            ignored_groups: BTreeSet::new(),
        }
    }
}

impl Default for Profile {
    fn default() -> Self {
        let with = |keep: fn(Plugin) -> bool| Plugin::ALL.into_iter().filter(move |one| keep(*one));
        Profile {
            scheduler_name: "default-scheduler".into(),
            percentage: 100,
            filters: with(filters).collect(),
            scorers: with(scores)
                .map(|one| (one, one.default_weight()))
                .collect(),
            preempts: true,
            fit: FitArgs::default(),
            balanced: vec!["cpu".into(), "memory".into()],
            storage_points: vec![(0, 100), (100, 0)],
            added_required: None,
            added_preferences: Vec::new(),
            hard_pod_affinity_weight: 1,
            ignores_preferred_terms_of_existing_pods: false,
            default_constraints: system_constraints(),
            is_system_defaulted: true,
        }
    }
}

impl Default for Configuration {
    fn default() -> Self {
        Configuration {
            profiles: vec![Profile::default()],
        }
    }
}

impl Profile {
    pub fn filters_with(&self, plugin: Plugin) -> bool {
        self.filters.contains(&plugin)
    }

    /// Return how much the plugin's normalised score counts; 0 when it does not score.
    pub fn weight(&self, plugin: Plugin) -> i64 {
        self.scorers
            .iter()
            .find(|(one, _)| *one == plugin)
            .map_or(0, |(_, weight)| *weight)
    }
}

fn filters(plugin: Plugin) -> bool {
    matches!(
        plugin,
        Plugin::NodeName
            | Plugin::NodeUnschedulable
            | Plugin::TaintToleration
            | Plugin::NodeAffinity
            | Plugin::NodePorts
            | Plugin::NodeResourcesFit
            | Plugin::VolumeRestrictions
            | Plugin::NodeVolumeLimits
            | Plugin::VolumeBinding
            | Plugin::VolumeZone
            | Plugin::PodTopologySpread
            | Plugin::InterPodAffinity
            | Plugin::NodeDeclaredFeatures
    )
}

fn scores(plugin: Plugin) -> bool {
    matches!(
        plugin,
        Plugin::TaintToleration
            | Plugin::NodeAffinity
            | Plugin::NodeResourcesFit
            | Plugin::VolumeBinding
            | Plugin::PodTopologySpread
            | Plugin::InterPodAffinity
            | Plugin::NodeResourcesBalancedAllocation
            | Plugin::ImageLocality
    )
}

fn system_constraints() -> Vec<SpreadConstraint> {
    let one = |key: &str, max_skew: i64| wire::TopologySpreadConstraint {
        max_skew,
        topology_key: key.into(),
        when_unsatisfiable: "ScheduleAnyway".into(),
        ..Default::default()
    };
    [
        one("kubernetes.io/hostname", 3),
        one("topology.kubernetes.io/zone", 5),
    ]
    .iter()
    .map(|one| spread_constraint(one, &Labels::new()))
    .collect()
}

wire_struct! {
    WireConfiguration {
        api_version: String,
        kind: String,
        percentage_of_nodes_to_score: Option<i32>,
        profiles: Vec<WireProfile>,
    }
    WireProfile {
        scheduler_name: String,
        percentage_of_nodes_to_score: Option<i32>,
        plugins: WirePlugins,
        plugin_config: Vec<WireArgs>,
    }
    WirePlugins {
        multi_point: WireSet,
        pre_filter: WireSet,
        filter: WireSet,
        post_filter: WireSet,
        score: WireSet,
    }
    WireSet { enabled: Vec<WirePlugin>, disabled: Vec<WirePlugin> }
    WirePlugin { name: String, weight: i64 }
    WireArgs { name: String, args: serde_json::Value }
    WireFit {
        ignored_resources: Vec<String>,
        ignored_resource_groups: Vec<String>,
        scoring_strategy: Option<WireStrategy>,
    }
    WireStrategy {
        r#type: String,
        resources: Vec<WireResource>,
        requested_to_capacity_ratio: Option<WireShape>,
    }
    WireResource { name: String, weight: i64 }
    WireShape { shape: Vec<WirePoint> }
    WirePoint { utilization: i64, score: i64 }
    WireBalanced { resources: Vec<WireResource> }
    WireVolumeBinding { bind_timeout_seconds: Option<i64>, shape: Vec<WirePoint> }
    WireAdded { added_affinity: wire::NodeAffinity }
    WireInterPod {
        hard_pod_affinity_weight: Option<i64>,
        ignore_preferred_terms_of_existing_pods: bool,
    }
    WireSpread { default_constraints: Vec<wire::TopologySpreadConstraint>, defaulting_type: String }
}

impl Configuration {
    /// Read a KubeSchedulerConfiguration in JSON. A percentage that is left out means that all nodes are looked at.
    pub fn parse(bytes: &[u8]) -> Result<Configuration, ConfigError> {
        let read: WireConfiguration = serde_json::from_slice(bytes)?;
        let expected = (
            "KubeSchedulerConfiguration",
            "kubescheduler.config.k8s.io/v1",
        );
        if (read.kind.as_str(), read.api_version.as_str()) != expected {
            return Err(ConfigError::Kind {
                kind: read.kind,
                version: read.api_version,
            });
        }
        let global = percentage(
            "percentageOfNodesToScore",
            read.percentage_of_nodes_to_score,
            100,
        )?;
        if read.profiles.is_empty() {
            return Ok(Configuration {
                profiles: vec![Profile {
                    percentage: global,
                    ..Profile::default()
                }],
            });
        }
        let mut profiles: Vec<Profile> = Vec::new();
        for (at, one) in read.profiles.into_iter().enumerate() {
            let path = format!("profiles[{at}]");
            let profile = profile(&path, one, global)?;
            if profiles
                .iter()
                .any(|other| other.scheduler_name == profile.scheduler_name)
            {
                return Err(ConfigError::Duplicate {
                    path: format!("{path}.schedulerName"),
                    value: profile.scheduler_name,
                });
            }
            profiles.push(profile);
        }
        Ok(Configuration { profiles })
    }
}

fn percentage(path: &str, value: Option<i32>, default: i32) -> Result<i32, ConfigError> {
    match value {
        None => Ok(default),
        Some(value) if (0..=100).contains(&value) => Ok(value),
        Some(value) => Err(ConfigError::Invalid {
            path: path.into(),
            value: value.to_string(),
            why: "not in valid range [0-100]",
        }),
    }
}

fn profile(path: &str, read: WireProfile, global: i32) -> Result<Profile, ConfigError> {
    let mut profile = Profile {
        percentage: percentage(
            &format!("{path}.percentageOfNodesToScore"),
            read.percentage_of_nodes_to_score,
            global,
        )?,
        ..Profile::default()
    };
    if !read.scheduler_name.is_empty() {
        profile.scheduler_name = read.scheduler_name;
    }
    let plugins = &read.plugins;
    let points = [
        &plugins.multi_point,
        &plugins.pre_filter,
        &plugins.filter,
        &plugins.post_filter,
        &plugins.score,
    ];
    for one in points
        .into_iter()
        .flat_map(|set| set.enabled.iter().chain(&set.disabled))
    {
        if one.name != "*" && Plugin::find(&one.name).is_none() {
            return Err(ConfigError::Invalid {
                path: format!("{path}.plugins"),
                value: one.name.clone(),
                why: "no such plugin",
            });
        }
    }
    let multi_point = merge(&plugins.multi_point);
    let filtering = expand(&multi_point, &plugins.filter);
    let prefiltering = expand(&multi_point, &plugins.pre_filter);
    let is_in = |set: &[(Plugin, i64)], plugin: Plugin| set.iter().any(|(one, _)| *one == plugin);
    profile.filters = filtering
        .iter()
        .map(|(one, _)| *one)
        .filter(|one| filters(*one) && is_in(&prefiltering, *one) | !prefilters(*one))
        .collect();
    profile.scorers = expand(&multi_point, &plugins.score)
        .into_iter()
        .filter(|(one, _)| scores(*one))
        .map(|(one, weight)| (one, if weight == 0 { 1 } else { weight }))
        .collect();
    profile.preempts = is_in(
        &expand(&multi_point, &plugins.post_filter),
        Plugin::DefaultPreemption,
    );
    for one in read.plugin_config {
        arguments(&mut profile, &format!("{path}.pluginConfig"), &one)?;
    }
    Ok(profile)
}

fn prefilters(plugin: Plugin) -> bool {
    !matches!(plugin, Plugin::NodeName | Plugin::NodeUnschedulable)
}

/// Merge what is enabled at all points with the default. Mirrors mergePluginSet.
fn merge(custom: &WireSet) -> Vec<(Plugin, i64)> {
    let replaced = |plugin: Plugin| custom.enabled.iter().find(|one| one.name == plugin.name());
    let is_off = |plugin: Plugin| {
        custom
            .disabled
            .iter()
            .any(|one| one.name == "*" || one.name == plugin.name())
    };
    let mut merged: Vec<(Plugin, i64)> = Plugin::ALL
        .into_iter()
        .filter(|plugin| *plugin != Plugin::DynamicResources && !is_off(*plugin))
        .map(|plugin| {
            (
                plugin,
                replaced(plugin).map_or(plugin.default_weight(), |one| one.weight),
            )
        })
        .collect();
    for one in &custom.enabled {
        if let Some(plugin) = Plugin::find(&one.name)
            && !merged.iter().any(|(other, _)| *other == plugin)
        {
            merged.push((plugin, one.weight));
        }
    }
    merged
}

/// Return what runs at one point: what it names itself, then what is enabled at all points and not disabled here.
fn expand(multi_point: &[(Plugin, i64)], point: &WireSet) -> Vec<(Plugin, i64)> {
    let own: Vec<(Plugin, i64)> = point
        .enabled
        .iter()
        .filter_map(|one| Some((Plugin::find(&one.name)?, one.weight)))
        .collect();
    let is_off = |plugin: Plugin| {
        point
            .disabled
            .iter()
            .any(|one| one.name == "*" || one.name == plugin.name())
    };
    let mut all: Vec<(Plugin, i64)> = Vec::new();
    for (plugin, weight) in multi_point {
        match own.iter().find(|(one, _)| one == plugin) {
            Some(found) => all.push(*found),
            None if !is_off(*plugin) => all.push((*plugin, *weight)),
            None => {}
        }
    }
    for one in own {
        if !all.iter().any(|(other, _)| *other == one.0) {
            all.push(one);
        }
    }
    all
}

fn arguments(profile: &mut Profile, path: &str, read: &WireArgs) -> Result<(), ConfigError> {
    let args = read.args.clone();
    match read.name.as_str() {
        "NodeResourcesFit" => profile.fit = fit_args(path, &WireFit::deserialize(args)?)?,
        "NodeResourcesBalancedAllocation" => {
            let names: Vec<String> = WireBalanced::deserialize(args)?
                .resources
                .into_iter()
                .map(|one| one.name)
                .collect();
            if !names.is_empty() {
                profile.balanced = names;
            }
        }
        "VolumeBinding" => {
            let args = WireVolumeBinding::deserialize(args)?;
            if let Some(seconds) = args.bind_timeout_seconds.filter(|one| *one < 0) {
                return Err(ConfigError::Invalid {
                    path: format!("{path}.bindTimeoutSeconds"),
                    value: seconds.to_string(),
                    why: "invalid BindTimeoutSeconds, should not be a negative value",
                });
            }
            if !args.shape.is_empty() {
                profile.storage_points = points(&format!("{path}.shape"), &args.shape)?;
            }
        }
        "NodeAffinity" => {
            let added = WireAdded::deserialize(args)?.added_affinity;
            let required = added.required_during_scheduling_ignored_during_execution;
            profile.added_required =
                required.map(|one| one.node_selector_terms.iter().map(Term::from).collect());
            let preferred = added.preferred_during_scheduling_ignored_during_execution;
            profile.added_preferences = preferred
                .iter()
                .map(|one| Preference {
                    weight: one.weight,
                    term: Term::from(&one.preference),
                })
                .collect();
        }
        "InterPodAffinity" => {
            let args = WireInterPod::deserialize(args)?;
            let weight = args.hard_pod_affinity_weight.unwrap_or(1);
            if !(0..=100).contains(&weight) {
                let path = format!("{path}.hardPodAffinityWeight");
                return Err(ConfigError::Invalid {
                    path,
                    value: weight.to_string(),
                    why: "not in valid range [0-100]",
                });
            }
            profile.hard_pod_affinity_weight = weight;
            profile.ignores_preferred_terms_of_existing_pods =
                args.ignore_preferred_terms_of_existing_pods;
        }
        "PodTopologySpread" => {
            let args = WireSpread::deserialize(args)?;
            match args.defaulting_type.as_str() {
                "List" => {
                    profile.default_constraints = args
                        .default_constraints
                        .iter()
                        .map(|one| spread_constraint(one, &Labels::new()))
                        .collect();
                    profile.is_system_defaulted = false;
                }
                "" | "System" if args.default_constraints.is_empty() => {}
                "" | "System" => {
                    let path = format!("{path}.defaultingType");
                    return Err(ConfigError::Invalid {
                        path,
                        value: "System".into(),
                        why: "when .defaultConstraints are not empty",
                    });
                }
                other => {
                    let path = format!("{path}.defaultingType");
                    return Err(ConfigError::Invalid {
                        path,
                        value: other.into(),
                        why: "supported values: \"List\", \"System\"",
                    });
                }
            }
        }
        _ => {}
    }
    Ok(())
}

fn fit_args(path: &str, read: &WireFit) -> Result<FitArgs, ConfigError> {
    let mut args = FitArgs {
        ignored_resources: read.ignored_resources.iter().cloned().collect(),
        ignored_groups: read.ignored_resource_groups.iter().cloned().collect(),
        ..FitArgs::default()
    };
    let Some(strategy) = &read.scoring_strategy else {
        return Ok(args);
    };
    if !strategy.resources.is_empty() {
        // A weight that is left out is one.
        args.resources = strategy
            .resources
            .iter()
            .map(|one| (one.name.clone(), one.weight.max(1)))
            .collect();
    }
    args.strategy = match strategy.r#type.as_str() {
        "LeastAllocated" | "" => Strategy::LeastAllocated,
        "MostAllocated" => Strategy::MostAllocated,
        "RequestedToCapacityRatio" => {
            let shape = strategy.requested_to_capacity_ratio.iter();
            let shape: Vec<WirePoint> = shape.flat_map(|one| one.shape.clone()).collect();
            let path = format!("{path}.scoringStrategy.requestedToCapacityRatio.shape");
            Strategy::RequestedToCapacityRatio(points(&path, &shape)?)
        }
        other => {
            let path = format!("{path}.scoringStrategy.type");
            return Err(ConfigError::Invalid {
                path,
                value: other.into(),
                why: "supported values: \"LeastAllocated\", \"MostAllocated\", \"RequestedToCapacityRatio\"",
            });
        }
    };
    Ok(args)
}

/// Read a broken line; scores go to 10 in the configuration and to 100 here. Mirrors validateFunctionShape.
fn points(path: &str, shape: &[WirePoint]) -> Result<Vec<(i64, i64)>, ConfigError> {
    let invalid = |why| ConfigError::Invalid {
        path: path.into(),
        value: String::new(),
        why,
    };
    let points: Vec<(i64, i64)> = shape
        .iter()
        .map(|one| (one.utilization, one.score * 10))
        .collect();
    if points.is_empty() {
        return Err(invalid("at least one point must be specified"));
    }
    let is_falling = |pair: &[(i64, i64)]| matches!(pair, [before, after] if after.0 <= before.0);
    if points.windows(2).any(is_falling) {
        return Err(invalid(
            "utilization values must be sorted in increasing order",
        ));
    }
    let is_in_range =
        |(at, score): &(i64, i64)| (0..=100).contains(at) && (0..=100).contains(score);
    if !points.iter().all(is_in_range) {
        return Err(invalid("utilization and score are not in valid range"));
    }
    Ok(points)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn parse(mut value: Value) -> Result<Configuration, ConfigError> {
        value["apiVersion"] = json!("kubescheduler.config.k8s.io/v1");
        value["kind"] = json!("KubeSchedulerConfiguration");
        Configuration::parse(value.to_string().as_bytes())
    }

    #[test]
    fn profiles_enable_disable_and_weigh_plugins() {
        let found = parse(json!({"percentageOfNodesToScore": 0, "profiles": [
            {"schedulerName": "a", "plugins": {"score": {"disabled": [{"name": "NodeAffinity"}], "enabled": [{"name": "ImageLocality", "weight": 7}]},
                "postFilter": {"disabled": [{"name": "*"}]}}},
            {"schedulerName": "b", "percentageOfNodesToScore": 30, "plugins": {"multiPoint": {"disabled": [{"name": "*"}], "enabled": [{"name": "NodeResourcesFit"}]}}},
        ]}))
        .unwrap();
        let [a, b] = &found.profiles[..] else {
            panic!("two profiles")
        };
        assert_eq!(
            (
                a.percentage,
                a.weight(Plugin::NodeAffinity),
                a.weight(Plugin::ImageLocality),
                a.preempts
            ),
            (0, 0, 7, false)
        );
        assert!(a.filters_with(Plugin::NodeAffinity));
        assert_eq!(
            (b.percentage, b.filters.as_slice(), b.scorers.as_slice()),
            (
                30,
                &[Plugin::NodeResourcesFit][..],
                &[(Plugin::NodeResourcesFit, 1)][..]
            )
        );
    }

    #[test]
    fn arguments_are_read_and_what_is_wrong_is_named() {
        let with = |name: &str, args: Value| {
            parse(json!({"profiles": [{"pluginConfig": [{"name": name, "args": args}]}]}))
        };
        let fit = with("NodeResourcesFit", json!({"ignoredResources": ["x.io/y"], "scoringStrategy": {"type": "RequestedToCapacityRatio",
            "resources": [{"name": "cpu", "weight": 3}], "requestedToCapacityRatio": {"shape": [{"utilization": 0, "score": 0}, {"utilization": 100, "score": 10}]}}}))
        .unwrap();
        assert_eq!(
            fit.profiles[0].fit.strategy,
            Strategy::RequestedToCapacityRatio(vec![(0, 0), (100, 100)])
        );
        let table = [
            (
                with("InterPodAffinity", json!({"hardPodAffinityWeight": 101})),
                "profiles[0].pluginConfig.hardPodAffinityWeight: Invalid value: \"101\": not in valid range [0-100]",
            ),
            (
                parse(json!({"percentageOfNodesToScore": 101})),
                "percentageOfNodesToScore: Invalid value: \"101\": not in valid range [0-100]",
            ),
            (
                parse(json!({"profiles": [{}, {}]})),
                "profiles[1].schedulerName: Duplicate value: \"default-scheduler\"",
            ),
            (
                parse(
                    json!({"profiles": [{"plugins": {"filter": {"enabled": [{"name": "Nope"}]}}}]}),
                ),
                "profiles[0].plugins: Invalid value: \"Nope\": no such plugin",
            ),
        ];
        for (found, expected) in table {
            assert_eq!(found.unwrap_err().to_string(), expected);
        }
    }
}
