//! How a process reaches the broker.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::wire::Wire;

/// Where the broker is, who we are to it, and how long we wait for it.
#[derive(Clone)]
pub struct BusConfig {
    /// One or several server URLs, comma-separated: `nats://host:4222`, or `tls://host:4222` for TLS.
    pub url: String,
    /// The name under which the broker's own tools show this connection.
    pub name: String,
    /// How long an operation of the bus itself (a JetStream call, a full send buffer, a flush) may take.
    pub request_timeout: Duration,
    /// How long [`Bus::connect`](crate::Bus::connect) tries.
    pub connect_timeout: Duration,
    /// A token, where the broker asks for one.
    pub token: Option<String>,
    /// A user, together with `password`.
    pub user: Option<String>,
    /// The password of `user`.
    pub password: Option<String>,
    /// A credentials file (JWT and NKey seed) as `nsc` writes it.
    pub creds_file: Option<PathBuf>,
    /// As which version this process writes.
    pub wire: Wire,
    /// Whether the queue knows a job that is published once more by its id; off only to show what that is good for.
    pub job_ids: bool,
}

impl Default for BusConfig {
    /// A broker on this machine without credentials; 2 s for requests, 5 s to connect.
    fn default() -> Self {
        Self {
            url: "nats://127.0.0.1:4222".to_owned(),
            name: "chorus".to_owned(),
            request_timeout: Duration::from_secs(2),
            connect_timeout: Duration::from_secs(5),
            token: None,
            user: None,
            password: None,
            creds_file: None,
            wire: Wire::Current,
            job_ids: true,
        }
    }
}

impl BusConfig {
    /// The defaults, with another URL.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), ..Self::default() }
    }

    /// The URL without user, password or token, fit for logs and errors.
    pub fn shown_url(&self) -> String {
        let without_secrets = |url: &str| match (url.find("://"), url.rfind('@')) {
            (Some(scheme), Some(at)) if at > scheme => format!("{}{}", &url[..scheme + 3], &url[at + 1..]),
            (None, Some(at)) => url[at + 1..].to_owned(),
            _ => url.to_owned(),
        };
        self.url.split(',').map(|url| without_secrets(url.trim())).collect::<Vec<_>>().join(",")
    }
}

impl fmt::Debug for BusConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BusConfig")
            .field("url", &self.shown_url())
            .field("name", &self.name)
            .field("request_timeout", &self.request_timeout)
            .field("connect_timeout", &self.connect_timeout)
            .field("token", &self.token.is_some())
            .field("user", &self.user)
            .field("password", &self.password.is_some())
            .field("creds_file", &self.creds_file)
            .field("wire", &self.wire)
            .field("job_ids", &self.job_ids)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let config = BusConfig {
            token: Some("t0ken".into()),
            password: Some("hunter2".into()),
            ..BusConfig::new("nats://me:pa@ss@one:4222, s3cret@two:4222,nats://three")
        };
        assert_eq!(config.shown_url(), "nats://one:4222,two:4222,nats://three");
        let shown = format!("{config:?}");
        for secret in ["t0ken", "hunter2", "pa@ss", "s3cret"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
}
