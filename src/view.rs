//! What the analyzers said last, as the page, the API and the exporter read it. The pump publishes a partition's
//! forecasts as a whole after each evaluation; readers never hold up the pump.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use forewarn_schemas::{Forecast, ForecastState, PartitionId, ResourceKey, SeriesId, Timestamp};

/// How long a resource that is quiet again stays among those exported.
const LINGER: Duration = Duration::from_secs(3600);

/// One partition's latest forecasts.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// When they were made.
    pub at: Timestamp,
    /// One per resource, by key.
    pub forecasts: Vec<Arc<Forecast>>,
    /// Resources by name and state, those included that were too many to keep as objects of their own.
    pub counts: BTreeMap<(String, ForecastState), usize>,
    /// The series of what is used, by resource.
    pub sources: HashMap<ResourceKey, SeriesId>,
}

/// The views of all partitions.
#[derive(Debug, Default)]
pub struct Views {
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    views: BTreeMap<PartitionId, Arc<View>>,
    /// When each resource was last rising or worse.
    notable: HashMap<ResourceKey, Timestamp>,
}

fn is_notable(state: ForecastState) -> bool {
    matches!(state, ForecastState::Rising | ForecastState::Critical | ForecastState::Exhausted)
}

impl Views {
    /// Replaces a partition's view.
    pub fn publish(&self, partition: PartitionId, view: View) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        for f in view.forecasts.iter().filter(|f| is_notable(f.state)) {
            inner.notable.insert(f.key.clone(), view.at);
        }
        let oldest = view.at - LINGER;
        inner.notable.retain(|_, at| *at >= oldest);
        inner.views.insert(partition, Arc::new(view));
    }

    /// Returns all forecasts, by partition and key.
    pub fn forecasts(&self) -> Vec<Arc<Forecast>> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        inner.views.values().flat_map(|v| v.forecasts.iter().cloned()).collect()
    }

    /// Returns the forecasts of resources that are rising or worse, or were within the hour; nearest first, at most
    /// `max`.
    pub fn notable(&self, max: usize) -> Vec<Arc<Forecast>> {
        let mut all = {
            let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
            let known = |f: &&Arc<Forecast>| inner.notable.contains_key(&f.key);
            inner.views.values().flat_map(|v| v.forecasts.iter()).filter(known).cloned().collect::<Vec<_>>()
        };
        all.sort_by(|a, b| crate::page::by_urgency(a, b));
        all.truncate(max);
        all
    }

    /// Returns how many resources are in each state, by resource name.
    pub fn counts(&self) -> BTreeMap<(String, ForecastState), usize> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        let mut out = BTreeMap::new();
        for (key, n) in inner.views.values().flat_map(|v| &v.counts) {
            *out.entry(key.clone()).or_default() += n;
        }
        out
    }

    /// Returns where the history of a resource is.
    pub fn source(&self, key: &ResourceKey) -> Option<(PartitionId, SeriesId)> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        inner.views.iter().find_map(|(p, v)| Some((*p, *v.sources.get(key)?)))
    }

    /// Returns when the partition that is furthest behind was last evaluated.
    pub fn at(&self) -> Option<Timestamp> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        inner.views.values().map(|v| v.at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::tests::rising;

    #[test]
    fn what_left_lingers_for_an_hour() {
        let views = Views::default();
        let publish = |state, at: i64| {
            let mut f = rising("n", "processes", "");
            f.state = state;
            let view = View { at: Timestamp::from_secs(at), forecasts: vec![Arc::new(f)], ..View::default() };
            views.publish(PartitionId(0), view);
        };
        publish(ForecastState::Ok, 0);
        assert!(views.notable(10).is_empty());
        publish(ForecastState::Critical, 10);
        publish(ForecastState::Ok, 20);
        assert_eq!(views.notable(10).len(), 1);
        publish(ForecastState::Ok, 3_610);
        assert_eq!(views.notable(10).len(), 1);
        publish(ForecastState::Ok, 3_611);
        assert!(views.notable(10).is_empty());
        assert_eq!(views.forecasts().len(), 1);
    }
}
