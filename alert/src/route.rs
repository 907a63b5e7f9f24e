//! The routing tree: which receivers get an alert, and how it is grouped there.
//!
//! An alert enters at the root and goes down: at each node the first child that matches takes it, and those after a
//! child with `continue` are tried too; a node whose children all decline takes it itself. Settings that a node leaves
//! out are its parent's.
//!
//! # Source
//! Alertmanager documentation, "Route-related settings".

use std::sync::Arc;
use std::time::Duration;

use forewarn_schemas::{Labels, Matcher};

use crate::config::RouteConfig;

/// Default of `group_wait`.
pub const GROUP_WAIT: Duration = Duration::from_secs(30);
/// Default of `group_wait` for a group with a critical alert: someone has to get up, so waiting costs more than a
/// second page would. A departure from Alertmanager, only where no `group_wait` is configured.
pub const GROUP_WAIT_CRITICAL: Duration = Duration::from_secs(10);
/// Default of `group_interval`.
pub const GROUP_INTERVAL: Duration = Duration::from_secs(5 * 60);
/// Default of `repeat_interval`.
pub const REPEAT_INTERVAL: Duration = Duration::from_secs(4 * 3600);

/// What alerts are grouped by.
#[derive(Debug, Clone, PartialEq)]
enum GroupBy {
    All,
    Labels(Vec<String>),
}

/// A node of the tree with everything inherited filled in.
#[derive(Debug, Clone)]
pub struct Route {
    /// Matchers from the root down: the first half of a group's key. `{}` for the root.
    pub key: Arc<str>,
    /// Whom to tell.
    pub receiver: Arc<str>,
    /// `group_wait`, where it is configured.
    pub group_wait: Option<Duration>,
    /// `group_interval`.
    pub group_interval: Duration,
    /// `repeat_interval`.
    pub repeat_interval: Duration,
    group_by: GroupBy,
    matchers: Vec<Matcher>,
    continues: bool,
    children: Vec<usize>,
}

impl Route {
    /// Returns the labels that an alert is grouped by here.
    pub fn group_labels(&self, labels: &Labels) -> Labels {
        match &self.group_by {
            GroupBy::All => labels.clone(),
            GroupBy::Labels(names) => labels.filtered(|n| names.iter().any(|g| g == n)),
        }
    }

    /// Returns how long a new group waits; `critical` says whether it has a critical alert.
    pub fn wait(&self, critical: bool) -> Duration {
        self.group_wait.unwrap_or(if critical { GROUP_WAIT_CRITICAL } else { GROUP_WAIT })
    }
}

/// A routing tree.
#[derive(Debug, Clone)]
pub struct RouteTree(Vec<Route>);

impl RouteTree {
    /// Builds the tree of a validated configuration.
    ///
    /// # Errors
    /// What [`validate`](crate::AlertConfig::validate) would have said of a receiver or matcher.
    pub fn new(root: &RouteConfig) -> Result<Self, String> {
        let mut tree = Self(Vec::new());
        let inherited = Route {
            key: "".into(),
            receiver: root.receiver.as_deref().ok_or("the root route needs a receiver")?.into(),
            group_wait: None,
            group_interval: GROUP_INTERVAL,
            repeat_interval: REPEAT_INTERVAL,
            group_by: GroupBy::Labels(Vec::new()),
            matchers: Vec::new(),
            continues: false,
            children: Vec::new(),
        };
        tree.add(root, &inherited)?;
        Ok(tree)
    }

    fn add(&mut self, config: &RouteConfig, parent: &Route) -> Result<usize, String> {
        let matchers = config.matchers().map_err(|e| e.join("; "))?;
        let own: Vec<String> = matchers.iter().map(ToString::to_string).collect();
        let slash = if parent.key.is_empty() { "" } else { "/" };
        let route = Route {
            key: format!("{}{slash}{{{}}}", parent.key, own.join(",")).into(),
            receiver: config.receiver.as_deref().map_or_else(|| Arc::clone(&parent.receiver), Arc::from),
            group_wait: config.group_wait.or(parent.group_wait),
            group_interval: config.group_interval.unwrap_or(parent.group_interval),
            repeat_interval: config.repeat_interval.unwrap_or(parent.repeat_interval),
            group_by: match &config.group_by {
                None => parent.group_by.clone(),
                Some(names) if names.iter().any(|n| n == "...") => GroupBy::All,
                Some(names) => GroupBy::Labels(names.clone()),
            },
            matchers,
            continues: config.r#continue,
            children: Vec::new(),
        };
        let index = self.0.len();
        self.0.push(route.clone());
        for child in &config.routes {
            let child = self.add(child, &route)?;
            self.0[index].children.push(child);
        }
        Ok(index)
    }

    /// Returns the nodes that take an alert with these labels; never empty, since the root takes all.
    pub fn matching(&self, labels: &Labels) -> Vec<&Route> {
        let mut out = Vec::new();
        self.descend(&self.0[0], labels, &mut out);
        out
    }

    fn descend<'a>(&'a self, node: &'a Route, labels: &Labels, out: &mut Vec<&'a Route>) {
        let before = out.len();
        for child in node.children.iter().map(|i| &self.0[*i]) {
            if child.matchers.iter().all(|m| m.matches(labels)) {
                self.descend(child, labels, out);
                if !child.continues {
                    break;
                }
            }
        }
        if out.len() == before {
            out.push(node);
        }
    }

    /// Returns the node with this key and receiver.
    pub fn find(&self, key: &str, receiver: &str) -> Option<&Route> {
        self.0.iter().find(|r| &*r.key == key && &*r.receiver == receiver)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> RouteTree {
        let config: RouteConfig = serde_saphyr::from_str(
            r#"
receiver: default
group_by: [alertname]
routes:
  - {receiver: audit, matchers: ['severity=~".+"'], continue: true, group_by: ['...']}
  - receiver: db
    matchers: ['service="db"']
    group_wait: 1s
    routes:
      - {receiver: db-night, matchers: ['when="night"'], repeat_interval: 1h}
  - {receiver: late, matchers: ['service=~"db|web"']}
"#,
        )
        .unwrap();
        RouteTree::new(&config).unwrap()
    }

    fn receivers(labels: &[(&str, &str)]) -> Vec<String> {
        let labels = Labels::from_pairs(labels.iter().copied()).unwrap();
        tree().matching(&labels).iter().map(|r| r.receiver.to_string()).collect()
    }

    #[test]
    fn first_match_wins_unless_it_continues() {
        assert_eq!(receivers(&[("a", "b")]), ["default"]);
        assert_eq!(receivers(&[("severity", "info")]), ["audit"]);
        assert_eq!(receivers(&[("severity", "info"), ("service", "db")]), ["audit", "db"]);
        assert_eq!(receivers(&[("service", "db"), ("when", "night")]), ["db-night"]);
        assert_eq!(receivers(&[("service", "web")]), ["late"]);
    }

    #[test]
    fn children_inherit_and_keys_tell_the_way() {
        let tree = tree();
        let labels = Labels::from_pairs([("service", "db"), ("when", "night"), ("alertname", "A")]).unwrap();
        let route = tree.matching(&labels)[0];
        assert_eq!(&*route.key, r#"{}/{service="db"}/{when="night"}"#);
        assert_eq!(route.group_wait, Some(Duration::from_secs(1)));
        assert_eq!(route.repeat_interval, Duration::from_secs(3600));
        assert_eq!(route.group_interval, GROUP_INTERVAL);
        assert_eq!(route.group_labels(&labels).to_string(), r#"{alertname="A"}"#);
        assert!(tree.find(&route.key, "db-night").is_some());
    }

    #[test]
    fn critical_waits_less_only_where_nothing_is_configured() {
        let root = tree().0[0].clone();
        assert_eq!((root.wait(true), root.wait(false)), (GROUP_WAIT_CRITICAL, GROUP_WAIT));
        let db = Route { group_wait: Some(Duration::from_secs(1)), ..root };
        assert_eq!(db.wait(true), Duration::from_secs(1));
    }
}
