//! One scenario from its start to its report.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Instant;

use chorus_bus::Bus;
use chorus_client::{BusPort, SessionHost, SessionHostConfig};
use chorus_runtime::clock::SystemClock;
use futures::future::join_all;
use tokio_util::sync::CancellationToken;

use crate::drive::Driver;
use crate::error::ChaosError;
use crate::fleet::{Fleet, Programs};
use crate::load::{Clients, Noticed};
use crate::report::{Findings, Report};
use crate::scenario::Scenario;
use crate::usage;
use crate::wiretap::Wiretap;

/// Numbers of the requests of one load; texts of two loads never meet.
const NUMBERS_PER_LOAD: u32 = 1_000_000;

/// Runs a scenario on a fleet of its own.
///
/// # Errors
/// When it cannot be run; what did not hold is in the report.
pub async fn run(programs: &Programs, scenario: &Scenario) -> Result<Report, ChaosError> {
    let cancel = CancellationToken::new();
    let _everything_ends_with_us = cancel.clone().drop_guard();
    let mut fleet = Fleet::start(programs, &scenario.fleet).await?;
    let report = on_fleet(&mut fleet, scenario, &cancel).await;
    fleet.end().await;
    report
}

async fn on_fleet(
    fleet: &mut Fleet,
    scenario: &Scenario,
    cancel: &CancellationToken,
) -> Result<Report, ChaosError> {
    let ears = Bus::connect(fleet.bus("chaos-wiretap")).await?;
    let wiretap = Wiretap::start(&ears, cancel).await?;
    fleet.recovered(&wiretap).await?;
    let clients = clients(fleet, scenario, cancel).await?;
    let (pids, ended) = (fleet.pids(), Arc::clone(&clients.ended));
    let mut samples = Vec::new();
    let mut driver = Driver::new(fleet, &wiretap, Arc::clone(&ended));
    let loading = load(&clients, scenario);
    let noticed = {
        tokio::pin!(loading);
        let driving = async {
            let driven = driver.run(scenario).await;
            clients.steps_over.cancel();
            driven
        };
        tokio::pin!(driving);
        let watching = usage::watch(pids, ended, &mut samples);
        tokio::pin!(watching);
        let mut driven = false;
        loop {
            tokio::select! {
                noticed = &mut loading => break noticed,
                done = &mut driving, if !driven => {
                    done?;
                    driven = true;
                }
                () = &mut watching => {}
            }
        }
    };
    let took = clients.begun.elapsed();
    clients.sessions.stop().await;
    clients.bus.close().await;
    ears.close().await;
    let (resumed, not_resumed) = wiretap.resumed();
    let (losses, superseded, recycled) = (wiretap.losses(), wiretap.superseded(), wiretap.recycled());
    let checks = scenario.checks;
    let watched = checks.max_rss_slope.is_some() || checks.max_fd_slope.is_some();
    let slopes = usage::slopes(&samples).filter(|_| watched);
    let name = scenario.name;
    let mut clients: Vec<_> = scenario.loads.iter().map(|load| load.client.name()).collect();
    clients.dedup();
    Ok(Report::new(&Findings {
        name,
        clients,
        checks,
        noticed,
        resumed,
        not_resumed,
        superseded,
        losses,
        recycled,
        slopes,
        took,
    }))
}

async fn clients(
    fleet: &Fleet,
    scenario: &Scenario,
    cancel: &CancellationToken,
) -> Result<Clients, ChaosError> {
    let bus = Bus::connect(fleet.bus("chaos-clients")).await?;
    let clock = SystemClock::shared();
    let port = Arc::new(BusPort::new(bus.clone(), clock.clone()));
    let mut config = SessionHostConfig::default();
    if let Some(off) = scenario.fleet.off {
        off.in_sessions(&mut config);
    }
    let sessions = SessionHost::start(bus.clone(), port, clock.clone(), config, cancel.child_token());
    let sessions = sessions.await.map_err(ChaosError::Sessions)?;
    Ok(Clients {
        scenario: scenario.name,
        bus,
        sessions,
        clock,
        steps_over: CancellationToken::new(),
        ended: Arc::new(AtomicU32::new(0)),
        begun: Instant::now(),
    })
}

async fn load(clients: &Clients, scenario: &Scenario) -> Vec<Noticed> {
    let loads = scenario.loads.iter().zip(0..).map(|(load, place)| {
        // Large: it holds every request that is under way.
        Box::pin(clients.run(load.clone(), place * NUMBERS_PER_LOAD))
    });
    join_all(loads).await.into_iter().flatten().collect()
}
