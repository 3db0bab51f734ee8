//! Which versions does it speak, and does it agree on the right one?

use chorus_protocol::MessageType;
use chorus_protocol::gateway::GatewayHello;
use chorus_protocol::version::SUPPORTED;
use semver::Version;
use serde_json::{Value, json};

use super::lab::Lab;
use crate::conformance::common::{UNSPOKEN, refused_version};
use crate::conformance::message::{Dialect, Message};
use crate::conformance::report::{Checked, Trouble, not_applicable, unmet};
use crate::conformance::talk::Talk;

/// All that we speak.
const ALL: &str = ">=1.0.0, <3.0.0";

fn start(lab: &Lab) -> Result<Talk, Trouble> {
    Talk::start(&lab.program, Dialect::Lines, lab.seen.clone())
}

fn greeting(range: &str) -> Value {
    json!({"method": "hello", "accept": range, "client": "chorus conformance"})
}

fn introduced(answer: &Message) -> Result<GatewayHello, Trouble> {
    let expected = "version, supported, server, pid, formats, methods and limits";
    if answer.kind != MessageType::Response {
        return Err(unmet(expected, answer.shown()));
    }
    answer.read().map_err(|why| unmet(expected, format!("{why}: {}", answer.shown())))
}

/// Begins a conversation in this version.
pub(super) async fn begin(lab: &Lab, dialect: Dialect) -> Result<Talk, Trouble> {
    let mut talk = start(lab)?;
    if dialect == Dialect::Bare {
        // The first line is what says so.
        talk.dialect = Dialect::Bare;
        return Ok(talk);
    }
    let version = dialect.version();
    let agreed = async {
        let answer = talk.answer(greeting(&format!("={version}")), lab.patience.start).await?;
        let hello = introduced(&answer)?;
        if hello.version == version {
            return Ok(());
        }
        Err(unmet(format!("version {version}, the only one that was asked for"), hello.version.to_string()))
    };
    if let Err(trouble) = agreed.await {
        talk.wire.stop().await;
        return Err(trouble);
    }
    talk.dialect = dialect;
    if dialect == Dialect::Frames {
        talk.wire.turn_to_frames();
    }
    Ok(talk)
}

/// The highest version that both speak is agreed on. What it speaks is known afterwards.
pub(super) async fn hello(lab: &mut Lab) -> Checked {
    if lab.forced == Some(Dialect::Bare) {
        lab.dialects = vec![Dialect::Bare];
        return Err(not_applicable("1.0 has no hello"));
    }
    let mut talk = start(lab)?;
    let range = lab.forced.map_or_else(|| ALL.to_owned(), |forced| format!("={}", forced.version()));
    let answer = talk.answer(greeting(&range), lab.patience.start).await;
    talk.wire.stop().await;
    let answer = answer?;
    if answer.bare && lab.forced.is_none() {
        lab.dialects = vec![Dialect::Bare];
        return Ok(Some("it answers as a gateway of 1.0".to_owned()));
    }
    let hello = introduced(&answer)?;
    lab.report.peer = Some(format!("{} {}", hello.server.name, hello.server.version));
    let both: Vec<Version> = hello.supported.iter().filter(|one| SUPPORTED.contains(one)).cloned().collect();
    let wanted = |one: &&Version| lab.forced.is_none_or(|forced| forced.version() == **one);
    let mutual: Vec<Version> = both.iter().filter(wanted).cloned().collect();
    lab.dialects = SUPPORTED.iter().filter(|one| mutual.contains(one)).filter_map(Dialect::of).collect();
    let (agreed, supported) = (hello.version.clone(), shown(&hello.supported));
    lab.hello = Some(hello);
    match mutual.iter().max() {
        Some(highest) if *highest == agreed => Ok(Some(format!("{agreed} of {supported}"))),
        Some(highest) => Err(unmet(format!("version {highest} of {supported}"), agreed.to_string())),
        None => Err(unmet(format!("a version of {range} among `supported`"), supported)),
    }
}

fn shown(versions: &[Version]) -> String {
    versions.iter().map(Version::to_string).collect::<Vec<_>>().join(", ")
}

/// A range that it does not speak is refused with the list of what there is, and another try is free.
pub(super) async fn version_refused(lab: &mut Lab) -> Checked {
    lab.conversed()?;
    if lab.hello.is_none() {
        return Err(not_applicable("1.0 has no hello"));
    }
    let mut talk = start(lab)?;
    let within = lab.patience.start;
    let checked = async {
        let refused = talk.answer(greeting(UNSPOKEN), within).await?;
        refused_version(&refused, Dialect::Lines)?;
        let range = lab.forced.map_or_else(|| ALL.to_owned(), |forced| format!("={}", forced.version()));
        introduced(&talk.answer(greeting(&range), within).await?)?;
        Ok(None)
    };
    let checked = checked.await;
    talk.wire.stop().await;
    checked
}
