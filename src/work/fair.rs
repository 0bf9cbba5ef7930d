//! Whose turn it is.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Lane, Rules};

/// Lanes and tenants whose last turn is remembered; who is forgotten comes first.
const REMEMBERED: usize = 16_384;

/// What is under way, and who had a turn when.
#[derive(Default)]
pub struct Rota {
    turn: u64,
    lanes: HashMap<Lane, Turns>,
    tenants: HashMap<Arc<str>, Turns>,
    busy: usize,
}

#[derive(Default, Clone, Copy)]
struct Turns {
    busy: usize,
    last: u64,
}

impl Rota {
    /// Pieces of work that are taken up or about to be.
    pub fn busy(&self) -> usize {
        self.busy
    }

    /// Gives free slots to lanes in which something is due: one after the other to the tenants, who
    /// waited longest first, and of a tenant to its lanes likewise. Answers the lanes, how many each
    /// may take, and whether one had to stand back.
    pub fn grant(&mut self, lanes: Vec<Lane>, rules: &Rules) -> (Vec<(Lane, usize)>, bool) {
        self.turn += 1;
        let mut free = rules.at_once.saturating_sub(self.busy);
        let mut tenants: HashMap<Arc<str>, Vec<(Lane, usize)>> = HashMap::new();
        for lane in lanes {
            let of = tenants.entry(lane.tenant_id.clone()).or_default();
            of.push((lane, 0));
        }
        let last = |turns: Option<&Turns>| turns.map_or(0, |turns| turns.last);
        let mut tenants: Vec<_> = tenants.into_iter().collect();
        tenants.sort_by_cached_key(|(id, _)| (last(self.tenants.get(id)), id.clone()));
        for (_, lanes) in &mut tenants {
            lanes.sort_by_key(|(lane, _)| last(self.lanes.get(lane)));
        }
        let mut stood_back = false;
        let mut at = vec![0; tenants.len()];
        let mut progress = true;
        while free > 0 && progress {
            progress = false;
            for (place, (tenant, lanes)) in tenants.iter_mut().enumerate() {
                let of_tenant = self.tenants.entry(tenant.clone()).or_default();
                if free == 0 || of_tenant.busy >= rules.per_tenant {
                    continue;
                }
                for _ in 0..lanes.len() {
                    let next = at[place] % lanes.len();
                    at[place] = next + 1;
                    let (lane, granted) = &mut lanes[next];
                    let of_lane = self.lanes.entry(lane.clone()).or_default();
                    if of_lane.busy < rules.per_lane {
                        of_lane.busy += 1;
                        of_lane.last = self.turn;
                        of_tenant.busy += 1;
                        of_tenant.last = self.turn;
                        self.busy += 1;
                        free -= 1;
                        *granted += 1;
                        progress = true;
                        break;
                    }
                }
            }
        }
        let mut granted = Vec::new();
        for (lane, slots) in tenants.into_iter().flat_map(|(_, lanes)| lanes) {
            match slots {
                0 => stood_back = true,
                _ => granted.push((lane, slots)),
            }
        }
        (granted, stood_back)
    }

    /// Takes slots of a lane back.
    pub fn free(&mut self, lane: &Lane, slots: usize) {
        self.busy = self.busy.saturating_sub(slots);
        if let Some(turns) = self.lanes.get_mut(lane) {
            turns.busy = turns.busy.saturating_sub(slots);
        }
        if let Some(turns) = self.tenants.get_mut(&lane.tenant_id) {
            turns.busy = turns.busy.saturating_sub(slots);
        }
        if self.lanes.len() > REMEMBERED {
            self.lanes.retain(|_, turns| turns.busy > 0);
        }
        if self.tenants.len() > REMEMBERED {
            self.tenants.retain(|_, turns| turns.busy > 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::AtShutdown;
    use std::time::Duration;

    fn rules(at_once: usize, per_tenant: usize, per_lane: usize) -> Rules {
        Rules {
            name: "test",
            hold: Duration::from_secs(1),
            look_every: Duration::from_secs(1),
            at_once,
            per_tenant,
            per_lane,
            give_up_after: 2,
            at_shutdown: AtShutdown::GiveBack,
        }
    }

    fn lanes(names: &[&str]) -> Vec<Lane> {
        names
            .iter()
            .map(|name| {
                let (tenant, key) = name.split_once('/').unwrap_or((name, ""));
                Lane::new(tenant, key)
            })
            .collect()
    }

    fn names(granted: &[(Lane, usize)]) -> Vec<String> {
        granted
            .iter()
            .map(|(lane, slots)| format!("{}/{}:{slots}", lane.tenant_id, lane.key))
            .collect()
    }

    #[test]
    fn slots_go_round_the_tenants() {
        let mut rota = Rota::default();
        let due = lanes(&["a/1", "a/2", "a/3", "a/4", "b/1"]);
        let (granted, stood_back) = rota.grant(due, &rules(4, 4, 1));
        assert_eq!(names(&granted), ["a/1:1", "a/2:1", "a/3:1", "b/1:1"]);
        assert!(stood_back);
        assert_eq!(rota.busy(), 4);
    }

    #[test]
    fn nobody_has_all_slots_or_more_than_its_lane_may() {
        let mut rota = Rota::default();
        let (granted, _) = rota.grant(lanes(&["a/1"]), &rules(8, 6, 4));
        assert_eq!(names(&granted), ["a/1:4"]);
        let (granted, _) = rota.grant(lanes(&["a/1", "a/2"]), &rules(8, 6, 4));
        assert_eq!(names(&granted), ["a/2:2"]);
        // One tenant fills its share, the rest is another's.
        let (granted, stood_back) = rota.grant(lanes(&["a/3", "b/1"]), &rules(8, 6, 4));
        assert_eq!(names(&granted), ["b/1:2"]);
        assert!(stood_back);
    }

    #[test]
    fn who_had_a_turn_stands_back() {
        let mut rota = Rota::default();
        let rules = rules(1, 1, 1);
        let mut served = Vec::new();
        for _ in 0..6 {
            let (granted, _) = rota.grant(lanes(&["a/1", "a/2", "b/1"]), &rules);
            for (lane, slots) in &granted {
                rota.free(lane, *slots);
            }
            served.extend(names(&granted));
        }
        // Half of the turns are each tenant's, and within one they go round.
        let expected = ["a/1:1", "b/1:1", "a/2:1", "b/1:1", "a/1:1", "b/1:1"];
        assert_eq!(served, expected);
    }

    #[test]
    fn it_remembers_no_more_than_it_must() {
        let mut rota = Rota::default();
        let rules = rules(REMEMBERED * 2, 10, 1);
        for n in 0..REMEMBERED + 10 {
            let name = format!("t{n}/1");
            let (granted, _) = rota.grant(lanes(&[&name]), &rules);
            let [(lane, slots)] = &granted[..] else {
                panic!("{granted:?}");
            };
            rota.free(lane, *slots);
        }
        assert!(rota.lanes.len() < REMEMBERED && rota.tenants.len() < REMEMBERED);
        assert_eq!(rota.busy(), 0);
    }
}
