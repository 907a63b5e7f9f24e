//! Which of too many objects are shown.

use super::{Analyzer, Evaluation};

impl Analyzer {
    /// For each crowded group (node, entry), shows the objects nearest to exhaustion and hides the rest.
    pub(super) fn choose_objects(&mut self, crowded: &[(u32, u32)], out: &mut Evaluation) {
        for group in crowded {
            let mut members: Vec<u32> = self
                .resource_index
                .values()
                .copied()
                .filter(|i| self.resources[*i as usize].as_ref().is_some_and(|r| (r.node, r.entry) == *group))
                .collect();
            // The index is in order of keys and the sort is stable, so equal ranks go by key.
            members.sort_by_key(|i| self.resources[*i as usize].as_ref().map(|r| r.rank()));
            for (place, i) in members.into_iter().enumerate() {
                let Some(resource) = &mut self.resources[i as usize] else { continue };
                let visible = place < self.config.objects_max;
                if visible == resource.visible {
                    continue;
                }
                resource.visible = visible;
                if visible {
                    out.changed.extend(resource.forecast().cloned());
                } else {
                    out.changed.retain(|f| f.key != resource.key);
                    out.gone.push(resource.key.clone());
                }
            }
        }
    }
}
