//! How the rest of the shell talks to the agent's loop: requests that change the cluster, and questions about it.

use crate::core::Core;
use crate::core::face::{Refused, Reply, Request};
use tokio::sync::{mpsc, oneshot};
use tracing::Span;

/// Answers a question with the core in hand; must be quick, it runs inside the loop.
pub type Question = Box<dyn FnOnce(&Core) + Send>;

pub enum Command {
    /// The span is that of whoever asks: what comes of the request is logged in it.
    Request(Request, Span, oneshot::Sender<Reply>),
    Question(Question),
}

/// Cheap to clone; every call fails once the agent has stopped.
#[derive(Clone)]
pub struct AgentHandle {
    commands: mpsc::Sender<Command>,
}

impl AgentHandle {
    pub fn new(commands: mpsc::Sender<Command>) -> Self {
        Self { commands }
    }

    pub async fn request(&self, request: Request) -> Reply {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Request(request, Span::current(), reply)).await?;
        answer.await.map_err(|_| stopped())?
    }

    pub async fn query<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Core) -> T + Send + 'static,
    ) -> Result<T, Refused> {
        let (reply, answer) = oneshot::channel();
        let question: Question = Box::new(move |core| {
            // The asker may have gone away; that is its affair.
            let _ = reply.send(question(core));
        });
        self.send(Command::Question(question)).await?;
        answer.await.map_err(|_| stopped())
    }

    async fn send(&self, command: Command) -> Result<(), Refused> {
        self.commands.send(command).await.map_err(|_| stopped())
    }
}

fn stopped() -> Refused {
    Refused::Unavailable("the agent is stopping".to_owned())
}
