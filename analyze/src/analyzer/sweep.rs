//! Forgetting: holes, cells that nothing reads, nodes that are silent.

use forewarn_schemas::Timestamp;

use super::Analyzer;

impl Analyzer {
    /// Closes what is no longer used and renumbers the rest. Slots are made again as their series come by, because
    /// they hold the old numbers; that changes nothing in what is said.
    pub(super) fn sweep(&mut self, at: Timestamp) {
        let patience = self.config.gone_after.as_secs_f64();
        let silent = |since: Timestamp| at.seconds_since(since) > patience;
        let mut cell_used = vec![false; self.cells.len()];
        let mut node_used = vec![false; self.nodes.len()];
        for resource in self.resources.iter_mut().flatten() {
            node_used[resource.node as usize] = true;
            for cell in resource.cells.each() {
                cell_used[*cell as usize] = true;
            }
        }
        for (used, cell) in cell_used.iter_mut().zip(&self.cells) {
            *used |= !silent(cell.received);
        }
        for (used, node) in node_used.iter_mut().zip(&self.nodes) {
            *used |= !silent(node.heard());
        }
        let whole = self.resources.iter().all(Option::is_some) && self.unwatched == 0;
        if whole && cell_used.iter().chain(&node_used).all(|used| *used) {
            return;
        }
        self.unwatched = 0;
        let cell_at = numbers(&cell_used);
        let node_at = numbers(&node_used);
        retain(&mut self.cells, &cell_used);
        retain(&mut self.nodes, &node_used);
        self.resources.retain(Option::is_some);
        for resource in self.resources.iter_mut().flatten() {
            resource.node = node_at[resource.node as usize];
            for cell in resource.cells.each() {
                *cell = cell_at[*cell as usize];
            }
        }
        self.index();
    }

    /// Makes every index again from the tables, and forgets which series is what.
    pub(super) fn index(&mut self) {
        self.slots.clear();
        self.roles.clear();
        self.node_index = self.nodes.iter().enumerate().map(|(i, n)| (n.name.clone(), i as u32)).collect();
        self.cell_index = self.cells.iter().enumerate().map(|(i, c)| (c.key.clone(), i as u32)).collect();
        self.resource_index.clear();
        self.watched.clear();
        for (i, resource) in self.resources.iter().enumerate() {
            let Some(resource) = resource else { continue };
            self.resource_index.insert(resource.key.clone(), i as u32);
            *self.watched.entry((resource.node, resource.entry)).or_default() += 1;
        }
    }
}

/// Returns the number that each kept element will have.
fn numbers(used: &[bool]) -> Vec<u32> {
    let mut next = 0;
    used.iter()
        .map(|u| {
            let n = next;
            next += u32::from(*u);
            n
        })
        .collect()
}

fn retain<T>(list: &mut Vec<T>, used: &[bool]) {
    let mut i = 0;
    list.retain(|_| {
        i += 1;
        used[i - 1]
    });
}
