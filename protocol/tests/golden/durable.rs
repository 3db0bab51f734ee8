//! Durable jobs: what is asked, answered and kept.

use chorus_protocol::durable::*;

use super::*;

#[test]
fn what_is_said_of_durable_jobs() {
    let job = DurableJob {
        principal: names::DEFAULT_PRINCIPAL.into(),
        job: MessageId::new("chapter-1").unwrap(),
        digest: "ab".repeat(32),
        format: AudioFormat::Flac,
        text_bytes: 1_000,
        state: DurableState::Speaking,
        lease: Some(Lease {
            manager: ManagerId::new("m-1").unwrap(),
            incarnation: Incarnation::from_u128(5),
        }),
        epoch: 3,
        model: Some(model()),
        progress: JobProgress {
            takes: vec![Take { epoch: 1, pieces: 2 }, Take { epoch: 3, pieces: 1 }],
            next_segment: 4,
            consumed_bytes: 250,
            pause_ms: 300,
            samples: 66_150,
            sample_rate: 22_050,
            crc32: 7,
        },
        fruitless: 1,
        result: Some(result()),
        created_ms: NOW_MS,
        updated_ms: NOW_MS + 5,
    };
    golden(
        "plain_reply",
        PlainReply {
            digest: "5e88".into(),
            holder: job.lease.clone().unwrap(),
            result: Some(result()),
            created_ms: NOW_MS,
        },
    );
    golden("job_ask", JobAsk { job: job.job.clone() });
    golden("job_status", job.status());
    golden("durable_job", job);
    golden("durable_text", DurableText { request: request(), prepared: Some("as a hook left it".into()) });
}
