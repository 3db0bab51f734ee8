//! Takes the steps of a scenario, one after the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use chorus_bus::Bus;
use chorus_protocol::{WorkerId, names};
use rustix::process::Signal;

use crate::error::ChaosError;
use crate::fleet::{Fleet, engine_of};
use crate::proc;
use crate::scenario::{Action, Node, Part, Rounds, Scenario, Step, When, Which};
use crate::wiretap::Wiretap;

const POLL: Duration = Duration::from_millis(1);
/// How long a worker must have been at a segment to be in the middle of it.
const MIDDLE: Duration = Duration::from_millis(5);
/// How long the moment of a step is waited for.
const PATIENCE: Duration = Duration::from_secs(120);
/// Whatever these bytes are, they are no frame: as a length they are far over the limit.
const GARBAGE: [u8; 64] = [0xfe; 64];

/// Drives one scenario.
pub(crate) struct Driver<'a> {
    pub(crate) fleet: &'a mut Fleet,
    pub(crate) wiretap: &'a Wiretap,
    pub(crate) ended: Arc<AtomicU32>,
    /// What the last step chose.
    chosen: Vec<usize>,
    round: u32,
}

impl<'a> Driver<'a> {
    pub(crate) fn new(fleet: &'a mut Fleet, wiretap: &'a Wiretap, ended: Arc<AtomicU32>) -> Self {
        Self { fleet, wiretap, ended, chosen: Vec::new(), round: 0 }
    }

    /// Goes through all rounds. Without an end of its own it goes on until it is dropped.
    pub(crate) async fn run(&mut self, scenario: &Scenario) -> Result<(), ChaosError> {
        while !scenario.steps.is_empty() && scenario.rounds != Rounds::Times(self.round) {
            for step in &scenario.steps {
                self.wait(step.when).await?;
                self.take(step).await?;
            }
            self.round += 1;
        }
        if scenario.rounds == Rounds::WhileLoaded {
            std::future::pending::<()>().await;
        }
        Ok(())
    }

    async fn wait(&self, when: When) -> Result<(), ChaosError> {
        let begun = Instant::now();
        if let When::After(time) = when {
            tokio::time::sleep(time).await;
            return Ok(());
        }
        let due = || match when {
            When::After(_) => true,
            When::Speaking => self.wiretap.speaking(MIDDLE).is_some(),
            When::Ended(requests) => self.ended.load(Ordering::Relaxed) >= requests,
        };
        while !due() {
            if begun.elapsed() > PATIENCE {
                return Err(ChaosError::Step(format!("{when:?} did not come")));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    async fn take(&mut self, step: &Step) -> Result<(), ChaosError> {
        tracing::info!(action = ?step.action, round = self.round, "a step");
        match step.action {
            Action::Kill(part) => self.each(part, Some(Signal::KILL)).await,
            Action::Stop(part) => self.each(part, Some(Signal::STOP)).await,
            Action::Continue(part) => self.each(part, Some(Signal::CONT)).await,
            Action::Terminate(part) => self.each(part, None).await,
            Action::KillEngine(which) => self.strike_engines(which, Signal::KILL).await,
            Action::Sicken(which) => self.strike_engines(which, Signal::USR1).await,
            Action::Start(part) => self.start(part).await,
            Action::CutLinks => self.with_link(|link| link.cut()),
            Action::DelayLinks(delay) => self.with_link(|link| link.delay(delay)),
            Action::Roll => self.roll().await,
            Action::Garbage(which) => self.write_garbage(which).await,
            Action::LinkDown => self.far()?.set(false).await,
            Action::LinkUp => self.far()?.set(true).await,
            Action::EmptyQueue => self.empty_queue().await,
            Action::Recover => self.fleet.recovered(self.wiretap).await,
        }
    }

    /// Sends a signal to a part, or, without one, ends it in order.
    async fn each(&mut self, part: Part, signal: Option<Signal>) -> Result<(), ChaosError> {
        for number in self.choose(part).await? {
            if matches!(part, Part::Worker(_)) && signal != Some(Signal::CONT) {
                self.strike(number)?;
            }
            let process = self.process(part, number)?;
            match signal {
                Some(Signal::KILL) => process.kill().await,
                Some(signal) => process.signal(signal)?,
                None => process.terminate().await,
            }
        }
        Ok(())
    }

    async fn strike_engines(&mut self, which: Which, signal: Signal) -> Result<(), ChaosError> {
        for number in self.choose(Part::Worker(which)).await? {
            let worker = self.process(Part::Worker(which), number)?;
            let Some(engine) = worker.pid().and_then(engine_of) else { continue };
            self.strike(number)?;
            proc::signal(engine, signal)?;
        }
        Ok(())
    }

    async fn start(&mut self, part: Part) -> Result<(), ChaosError> {
        for number in self.choose(part).await? {
            match part {
                Part::Broker | Part::Node(_) => self.fleet.broker.start_node(number).await?,
                Part::Manager(_) | Part::Worker(_) => self.process(part, number)?.start().await?,
            }
        }
        Ok(())
    }

    async fn roll(&mut self) -> Result<(), ChaosError> {
        for number in 0..self.fleet.workers.len() {
            self.fleet.workers[number].terminate().await;
            self.fleet.workers[number].start().await?;
            self.fleet.recovered(self.wiretap).await?;
        }
        for number in 0..self.fleet.managers.len() {
            self.fleet.managers[number].terminate().await;
            self.fleet.managers[number].start().await?;
            self.fleet.recovered(self.wiretap).await?;
        }
        Ok(())
    }

    /// Into the pipe by which the engine answers, beside what the engine itself writes.
    async fn write_garbage(&mut self, which: Which) -> Result<(), ChaosError> {
        for number in self.choose(Part::Worker(which)).await? {
            let worker = self.process(Part::Worker(which), number)?;
            let Some(engine) = worker.pid().and_then(engine_of) else { continue };
            self.strike(number)?;
            proc::write_into_pipes(engine, &GARBAGE)?;
        }
        Ok(())
    }

    fn far(&self) -> Result<&crate::fleet::Far, ChaosError> {
        let far = self.fleet.far.as_ref();
        far.ok_or_else(|| ChaosError::Step("the fleet of this scenario has no far worker".to_owned()))
    }

    async fn empty_queue(&self) -> Result<(), ChaosError> {
        let bus = Bus::connect(self.fleet.bus("chaos-purge")).await?;
        let subject = format!("$JS.API.STREAM.PURGE.{}", names::JOBS_STREAM);
        let purged = bus.request_raw(&subject, "".into(), Duration::from_secs(10)).await;
        bus.close().await;
        purged.map(|_| ()).map_err(|error| ChaosError::Step(error.to_string()))
    }

    fn with_link(&self, act: impl FnOnce(&crate::link::Link)) -> Result<(), ChaosError> {
        let link = self.fleet.link.as_ref();
        act(link.ok_or_else(|| ChaosError::Step("the fleet of this scenario has no proxy".to_owned()))?);
        Ok(())
    }

    /// From now on, what this worker is in the middle of counts as interrupted.
    fn strike(&self, number: usize) -> Result<(), ChaosError> {
        let name = &self.fleet.workers[number].name;
        let id = WorkerId::new(name.as_str()).map_err(|error| ChaosError::Step(error.to_string()))?;
        self.wiretap.struck(&id);
        Ok(())
    }

    async fn choose(&mut self, part: Part) -> Result<Vec<usize>, ChaosError> {
        let nodes = self.fleet.broker.nodes.len();
        let (which, count) = match part {
            Part::Broker => (Which::Number(0), 1),
            Part::Node(Node::Same) => (Which::Same, nodes),
            Part::Node(node) => {
                let leader = self.fleet.broker.leader().await?;
                let other = (leader + 1) % nodes;
                (Which::Number(if node == Node::Leader { leader } else { other } as u32), nodes)
            }
            Part::Manager(which) => (which, self.fleet.managers.len()),
            Part::Worker(which) => (which, self.fleet.workers.len()),
        };
        self.chosen = match which {
            Which::Number(number) => vec![number as usize],
            Which::All => (0..count).collect(),
            Which::Half => (0..count).filter(|number| number % 2 == self.round as usize % 2).collect(),
            Which::Same => std::mem::take(&mut self.chosen),
            Which::Speaking => {
                let speaking = self.wiretap.speaking(MIDDLE).filter(|_| matches!(part, Part::Worker(_)));
                vec![speaking.and_then(|id| self.fleet.worker(&id)).unwrap_or(0)]
            }
        };
        match self.chosen.iter().find(|&&number| number >= count) {
            Some(number) => Err(ChaosError::Step(format!("{part:?}: there is no number {number}"))),
            None => Ok(self.chosen.clone()),
        }
    }

    fn process(&mut self, part: Part, number: usize) -> Result<&mut crate::fleet::PartProcess, ChaosError> {
        let found = match part {
            Part::Broker | Part::Node(_) => self.fleet.broker.nodes.get_mut(number),
            Part::Manager(_) => self.fleet.managers.get_mut(number),
            Part::Worker(_) => self.fleet.workers.get_mut(number),
        };
        found.ok_or_else(|| ChaosError::Step(format!("{part:?}: there is no number {number}")))
    }
}
