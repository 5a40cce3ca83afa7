//! Getting an image here.
//!
//! A reference with a digest names one image for ever: present is enough. One with only a tag may have moved, so the
//! registry is asked first, and a local image is good enough where it does not answer soon or does not have it.
//! Tasks that want the same image at the same time ask once.

use super::{DockerEngine, failed, status};
use crate::model::container::OpError;
use bollard::query_parameters::{CreateImageOptions, CreateImageOptionsBuilder};
use futures_util::StreamExt;
use hyper::header::{HeaderName, HeaderValue};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

/// The registry's first word, where a local image could do instead.
const FIRST_WORD: Duration = Duration::from_secs(5);
/// Between two signs of progress after that.
const SILENCE: Duration = Duration::from_secs(60);
/// How long an answer for one image also serves the next task that wants it.
const FRESH: Duration = Duration::from_secs(10);
const REGISTRY_AUTH: HeaderName = HeaderName::from_static("x-registry-auth");

/// When each image was last settled; whoever asks holds its lock.
#[derive(Default)]
pub(super) struct Pulls {
    images: StdMutex<BTreeMap<(String, Option<String>), Settled>>,
}

type Settled = Arc<Mutex<Option<Instant>>>;

impl Pulls {
    fn of(&self, image: &str, auth: Option<&str>) -> Settled {
        let mut images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
        // What nobody holds and nobody would reuse is forgotten.
        images.retain(|_, settled| {
            Arc::strong_count(settled) > 1 || settled.try_lock().is_ok_and(|at| at.is_some_and(is_fresh))
        });
        images.entry((image.to_owned(), auth.map(str::to_owned))).or_default().clone()
    }
}

fn is_fresh(at: Instant) -> bool {
    at.elapsed() < FRESH
}

impl DockerEngine {
    pub(super) async fn pull(&self, image: &str, auth: Option<String>) -> Result<(), OpError> {
        let reference = Reference::of(image);
        let settled = self.inner.pulls.of(image, auth.as_deref());
        let mut settled = settled.lock().await;
        let present = self.has(&reference.local()).await?;
        if present && (reference.digest.is_some() || settled.is_some_and(is_fresh)) {
            return Ok(());
        }
        let first_word = if present { Some(FIRST_WORD) } else { None };
        match self.fetch(&reference, auth, first_word).await {
            Ok(()) => {}
            Err(why) if present => tracing::warn!(image, %why, "using the local image: it could not be pulled"),
            Err(why) => return Err(why),
        }
        *settled = Some(Instant::now());
        Ok(())
    }

    async fn has(&self, image: &str) -> Result<bool, OpError> {
        match self.client(super::CALL_LIMIT)?.inspect_image(image).await {
            Ok(_) => Ok(true),
            // 400: an engine that finds the reference itself wrong; the pull will say so in its words.
            Err(error) if matches!(status(&error), Some(400 | 404)) => Ok(false),
            Err(error) => Err(failed(&error)),
        }
    }

    /// `first_word` bounds the wait for the registry; `None` leaves it to the operation's own time limit.
    async fn fetch(
        &self,
        reference: &Reference<'_>,
        auth: Option<String>,
        first_word: Option<Duration>,
    ) -> Result<(), OpError> {
        let mut client = self.client(crate::limits::PULL_TIMEOUT)?;
        if let Some(auth) = auth.and_then(|auth| HeaderValue::try_from(auth).ok()) {
            // As the client sent it. bollard's own way decodes it and encodes it again in the wrong base64 alphabet.
            client = client.with_request_modifier(move |mut request| {
                request.headers_mut().insert(REGISTRY_AUTH, auth.clone());
                request
            });
        }
        let mut progress = client.create_image(Some(reference.options()), None, None).boxed();
        let mut patience = first_word;
        loop {
            let line = match patience {
                Some(limit) => timeout(limit, progress.next()).await.map_err(|_| {
                    OpError::TimedOut(format!("no word from the registry within {} s", limit.as_secs()))
                })?,
                None => progress.next().await,
            };
            match line {
                Some(Ok(_)) => patience = first_word.map(|_| SILENCE),
                Some(Err(error)) => return Err(failed(&error)),
                None => return Ok(()),
            }
        }
    }
}

/// An image reference, taken apart as far as the engine wants it in parts.
#[derive(Debug, PartialEq, Eq)]
struct Reference<'a> {
    repository: &'a str,
    tag: Option<&'a str>,
    digest: Option<&'a str>,
}

impl<'a> Reference<'a> {
    fn of(text: &'a str) -> Self {
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (text, None),
        };
        // A colon before a slash belongs to the registry's port.
        match name.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => Self { repository, tag: Some(tag), digest },
            _ => Self { repository: name, tag: None, digest },
        }
    }

    /// What to look for among the local images: with a digest the tag doesn't count.
    fn local(&self) -> String {
        match self.digest {
            Some(digest) => format!("{}@{digest}", self.repository),
            None => format!("{}:{}", self.repository, self.tag_or_latest()),
        }
    }

    /// An engine that is asked for no tag pulls all of them.
    fn options(&self) -> CreateImageOptions {
        let tag = self.digest.unwrap_or_else(|| self.tag_or_latest());
        CreateImageOptionsBuilder::default().from_image(self.repository).tag(tag).build()
    }

    fn tag_or_latest(&self) -> &'a str {
        self.tag.unwrap_or("latest")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[test]
    fn references_are_taken_apart() {
        let parts = |text| {
            let r = Reference::of(text);
            (r.repository, r.tag, r.digest)
        };
        assert_eq!(parts("nginx"), ("nginx", None, None));
        assert_eq!(parts("nginx:1.25"), ("nginx", Some("1.25"), None));
        assert_eq!(parts("host:5000/team/app"), ("host:5000/team/app", None, None));
        assert_eq!(parts("host:5000/team/app:v2"), ("host:5000/team/app", Some("v2"), None));
        assert_eq!(parts("app:v2@sha256:ab"), ("app", Some("v2"), Some("sha256:ab")));
    }

    #[test]
    fn no_tag_means_latest_and_a_digest_beats_the_tag() {
        assert_eq!(Reference::of("nginx").local(), "nginx:latest");
        assert_eq!(Reference::of("app:v2@sha256:ab").local(), "app@sha256:ab");
        let options = Reference::of("h:1/app:v2@sha256:ab").options();
        assert_eq!((options.from_image.as_deref(), options.tag.as_deref()), (Some("h:1/app"), Some("sha256:ab")));
        assert_eq!(Reference::of("app").options().tag.as_deref(), Some("latest"));
    }

    /// An engine of two answers; returns the heads of the requests that it got.
    async fn pull_from(
        image: &str,
        auth: Option<&str>,
        present: bool,
        answer: &'static str,
    ) -> (Result<(), OpError>, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let heads: Arc<StdMutex<Vec<String>>> = Arc::default();
        let got = heads.clone();
        let server = tokio::spawn(async move {
            while let Ok((mut talk, _)) = listener.accept().await {
                let mut head = vec![0; 4096];
                let n = talk.read(&mut head).await.unwrap();
                let head = String::from_utf8_lossy(&head[..n]).into_owned();
                let (status, body) = match (head.starts_with("GET"), present) {
                    (true, true) => (200, "{}"),
                    (true, false) => (404, r#"{"message":"No such image"}"#),
                    (false, _) => (200, answer),
                };
                got.lock().unwrap().push(head);
                let length = body.len();
                let reply = format!(
                    "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
                );
                talk.write_all(reply.as_bytes()).await.unwrap();
            }
        });
        let result = DockerEngine::new(&socket).pull(image, auth.map(str::to_owned)).await;
        server.abort();
        let heads = heads.lock().unwrap().clone();
        (result, heads)
    }

    const PULLED: &str = "{\"status\":\"Pulling from app\"}\r\n{\"status\":\"Status: Image is up to date\"}\r\n";
    const UNKNOWN: &str = "{\"errorDetail\":{\"message\":\"manifest unknown\"},\"error\":\"manifest unknown\"}\r\n";

    #[tokio::test]
    async fn credentials_go_to_the_engine_as_they_came() {
        let auth = "eyJ1c2VybmFtZSI6Ij8_In0-_=";
        let (result, heads) = pull_from("h:5000/app:v1", Some(auth), false, PULLED).await;
        assert_eq!(result, Ok(()));
        assert!(heads[0].starts_with("GET /images/h:5000/app:v1/json"), "{}", heads[0]);
        assert!(heads[1].starts_with("POST /images/create?fromImage=h%3A5000%2Fapp&tag=v1"), "{}", heads[1]);
        assert!(heads[1].contains(&format!("x-registry-auth: {auth}\r\n")), "{}", heads[1]);
    }

    #[tokio::test]
    async fn an_image_that_is_here_by_digest_is_not_asked_for() {
        let (result, heads) = pull_from("app:v1@sha256:ab", None, true, PULLED).await;
        assert_eq!((result, heads.len()), (Ok(()), 1));
        assert!(heads[0].starts_with("GET /images/app@sha256:ab/json"), "{}", heads[0]);
    }

    #[tokio::test]
    async fn what_the_registry_lacks_is_refused_unless_it_is_here() {
        let (result, _) = pull_from("app:v1", None, false, UNKNOWN).await;
        assert_eq!(result, Err(OpError::Refused("manifest unknown".to_owned())));
        let (result, heads) = pull_from("app:v1", None, true, UNKNOWN).await;
        assert_eq!((result, heads.len()), (Ok(()), 2), "asked, because the tag may have moved");
    }

    #[test]
    fn settled_images_are_forgotten_when_stale() {
        let pulls = Pulls::default();
        let held = pulls.of("a:1", None);
        drop(pulls.of("b:1", None));
        drop(pulls.of("c:1", None));
        let names: Vec<String> = pulls.images.lock().unwrap().keys().map(|(image, _)| image.clone()).collect();
        assert_eq!(names, ["a:1", "c:1"]);
        drop(held);
    }
}
