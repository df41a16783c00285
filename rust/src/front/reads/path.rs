//! The line of a read: which collection, which object of it, and the parameters that decide the answer.
//!
//! None stands for whatever is not plainly a read of stored objects; the application reads it again and says what is wrong with it.

use hyper::Uri;

/// Kubernetes' verbs for GET.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Get = 0,
    List = 1,
    Watch = 2,
}

impl Verb {
    pub(super) const NAMES: [&str; 3] = ["GET", "LIST", "WATCH"];
}

/// A read. Names are empty where the path has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) verb: Verb,
    pub(super) group: String,
    pub(super) version: String,
    pub(super) resource: String,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) options: Options,
}

/// The parameters of lists and watches; text is decoded but not understood yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) label_selector: String,
    pub(super) field_selector: String,
    /// None: not given, or empty.
    pub(super) resource_version: Option<u64>,
    pub(super) resource_version_match: String,
    pub(super) limit: usize,
    pub(super) continue_token: String,
    pub(super) timeout_s: u64,
    pub(super) allows_bookmarks: bool,
    pub(super) sends_initial_events: bool,
}

impl Asked {
    /// Whether a state that is a little old will do.
    pub(super) fn takes_any_revision(&self) -> bool {
        match self.verb {
            Verb::Get | Verb::List => self.options.resource_version == Some(0),
            Verb::Watch => {
                self.options.resource_version.is_some() && !self.options.sends_initial_events
            }
        }
    }
}

/// Read `/api/v1/...` and `/apis/GROUP/VERSION/...`: a collection or an object, of the cluster or of a namespace.
pub(super) fn read(uri: &Uri) -> Option<Asked> {
    let path = uri.path();
    if path.contains('%') || path.contains("//") || path.ends_with('/') {
        return None;
    }
    let mut parts = path.strip_prefix('/')?.split('/');
    let (group, version) = match parts.next()? {
        "api" => ("", parts.next()?),
        "apis" => (parts.next()?, parts.next()?),
        _ => return None,
    };
    let rest: Vec<&str> = parts.collect();
    let (namespace, resource, name) = match *rest.as_slice() {
        ["watch", ..] => return None,
        [resource] => ("", resource, ""),
        [resource, name] => ("", resource, name),
        ["namespaces", _, "status" | "finalize"] => return None,
        ["namespaces", namespace, resource] => (namespace, resource, ""),
        ["namespaces", namespace, resource, name] => (namespace, resource, name),
        _ => return None,
    };
    let mut is_watch = false;
    let options = options(uri.query().unwrap_or_default(), &mut is_watch)?;
    let verb = match (name.is_empty(), is_watch) {
        (false, false) => Verb::Get,
        (true, false) => Verb::List,
        (true, true) => Verb::Watch,
        (false, true) => return None,
    };
    let asked = Asked {
        verb,
        group: group.to_owned(),
        version: version.to_owned(),
        resource: resource.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        options,
    };
    is_plain(&asked).then_some(asked)
}

fn options(query: &str, is_watch: &mut bool) -> Option<Options> {
    let mut options = Options::default();
    let mut seen: Vec<&str> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, raw) = pair.split_once('=').unwrap_or((pair, ""));
        // The first of equal parameters counts, which is the application's rule to apply.
        if seen.contains(&key) {
            return None;
        }
        seen.push(key);
        let value = decoded(raw)?;
        match key {
            "watch" => *is_watch = flag(&value)?,
            "labelSelector" => options.label_selector = value,
            "fieldSelector" => options.field_selector = value,
            "resourceVersion" if value.is_empty() => {}
            "resourceVersion" => options.resource_version = Some(number(&value)?),
            "resourceVersionMatch" => options.resource_version_match = value,
            "limit" => options.limit = usize::try_from(number(&value)?).ok()?,
            "continue" => options.continue_token = value,
            "timeoutSeconds" => options.timeout_s = number(&value)?,
            "allowWatchBookmarks" => options.allows_bookmarks = flag(&value)?,
            "sendInitialEvents" => options.sends_initial_events = flag(&value)?,
            "timeout" | "pretty" => {}
            _ => return None,
        }
    }
    Some(options)
}

/// Whether the parameters go together; the application refuses those that do not.
fn is_plain(asked: &Asked) -> bool {
    let options = &asked.options;
    let matching = options.resource_version_match.as_str();
    match asked.verb {
        Verb::Get => {
            *options
                == Options {
                    resource_version: options.resource_version,
                    ..Options::default()
                }
                && options.resource_version.unwrap_or(0) == 0
        }
        Verb::List => {
            let is_match_fit = match matching {
                "" => true,
                "Exact" => {
                    options.continue_token.is_empty()
                        && options
                            .resource_version
                            .is_some_and(|revision| revision != 0)
                }
                "NotOlderThan" => {
                    options.continue_token.is_empty() && options.resource_version.is_some()
                }
                _ => false,
            };
            let is_continue_fit =
                options.continue_token.is_empty() || options.resource_version.unwrap_or(0) == 0;
            is_match_fit && is_continue_fit && !options.sends_initial_events
        }
        Verb::Watch => {
            let wanted = if options.sends_initial_events {
                "NotOlderThan"
            } else {
                ""
            };
            matching == wanted && options.continue_token.is_empty()
        }
    }
}

fn number(text: &str) -> Option<u64> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

fn flag(text: &str) -> Option<bool> {
    match text {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

/// Percent and plus decoding, None for what is not UTF-8 or not well formed.
fn decoded(raw: &str) -> Option<String> {
    if !raw.contains(['%', '+']) {
        return Some(raw.to_owned());
    }
    let mut out = Vec::with_capacity(raw.len());
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let high = char::from(bytes.next()?).to_digit(16)?;
                let low = char::from(bytes.next()?).to_digit(16)?;
                out.push(u8::try_from(high * 16 + low).ok()?);
            }
            other => out.push(other),
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Option<Asked> {
        read(&line.parse().unwrap())
    }

    #[test]
    fn paths_name_collections_and_objects_of_cluster_and_namespace() {
        for (line, expected) in [
            ("/api/v1/pods", (Verb::List, "", "v1", "pods", "", "")),
            (
                "/api/v1/namespaces/d/pods/p",
                (Verb::Get, "", "v1", "pods", "d", "p"),
            ),
            (
                "/apis/apps/v1/namespaces/d/deployments?watch=true",
                (Verb::Watch, "apps", "v1", "deployments", "d", ""),
            ),
            (
                "/api/v1/namespaces/d",
                (Verb::Get, "", "v1", "namespaces", "", "d"),
            ),
            (
                "/api/v1/nodes/n1?resourceVersion=0",
                (Verb::Get, "", "v1", "nodes", "", "n1"),
            ),
        ] {
            let asked = parsed(line).unwrap();
            let found = (
                asked.verb,
                &*asked.group,
                &*asked.version,
                &*asked.resource,
                &*asked.namespace,
                &*asked.name,
            );
            assert_eq!(found, expected, "{line}");
        }
    }

    #[test]
    fn what_is_not_plain_is_left_to_the_application() {
        for line in [
            "/api/v1/namespaces/d/pods/p/log",
            "/api/v1/namespaces/d/status",
            "/api/v1/namespaces/d/finalize",
            "/api/v1/watch/pods",
            "/api/v1/pods/",
            "/api/v1//pods",
            "/api/v1/pods/a%2fb",
            "/version",
            "/api/v1",
            "/api/v1/pods/p?watch=1",
            "/api/v1/pods/p?limit=1",
            "/api/v1/pods/p?resourceVersion=5",
            "/api/v1/pods?limit=x",
            "/api/v1/pods?limit=-1",
            "/api/v1/pods?unknown=1",
            "/api/v1/pods?limit=1&limit=2",
            "/api/v1/pods?resourceVersion=5&continue=x",
            "/api/v1/pods?resourceVersionMatch=Exact",
            "/api/v1/pods?resourceVersionMatch=Exact&resourceVersion=0",
            "/api/v1/pods?resourceVersionMatch=Nearly&resourceVersion=1",
            "/api/v1/pods?watch=maybe",
            "/api/v1/pods?watch=1&sendInitialEvents=true",
            "/api/v1/pods?watch=1&resourceVersionMatch=NotOlderThan",
            "/api/v1/pods?labelSelector=%zz",
            "/api/v1/pods?labelSelector=%ff",
        ] {
            assert_eq!(parsed(line), None, "{line}");
        }
    }

    #[test]
    fn parameters_are_decoded() {
        let asked = parsed("/api/v1/pods?labelSelector=app%20in+(a%2Cb)&fieldSelector=spec.nodeName%3Dn1&limit=5&timeoutSeconds=9").unwrap();
        assert_eq!(asked.options.label_selector, "app in (a,b)");
        assert_eq!(asked.options.field_selector, "spec.nodeName=n1");
        assert_eq!((asked.options.limit, asked.options.timeout_s), (5, 9));
    }
}
