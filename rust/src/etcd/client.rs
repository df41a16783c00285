//! Calls to an etcd server, typed by the messages of `wire`, over a tonic channel (which connects, reconnects and speaks TLS).

use futures_core::Stream;
use prost::Message;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

/// The longest answer that is accepted, in bytes. Ranges may be large, and etcd does not cut them.
const ANSWER_BYTES_MAX: usize = i32::MAX as usize;

/// A handle for calls; clones share the channel.
#[derive(Debug, Clone)]
pub struct Client {
    grpc: Grpc<Channel>,
}

impl Client {
    pub fn new(channel: Channel) -> Self {
        Client {
            grpc: Grpc::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX),
        }
    }

    /// One question, one answer. `path` is one of `wire::path`. Fails with the status that the server, or the channel, gives.
    pub async fn unary<Q, A>(&mut self, path: &'static str, question: Q) -> Result<A, Status>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let (path, codec) = self.call(path).await?;
        let answer = self.grpc.unary(Request::new(question), path, codec).await?;
        Ok(answer.into_inner())
    }

    /// One question, a stream of answers.
    pub async fn server_streaming<Q, A>(
        &mut self,
        path: &'static str,
        question: Q,
    ) -> Result<Streaming<A>, Status>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let (path, codec) = self.call(path).await?;
        let request = Request::new(question);
        let answers = self.grpc.server_streaming(request, path, codec).await?;
        Ok(answers.into_inner())
    }

    /// A stream of questions, a stream of answers.
    pub async fn streaming<Q, A>(
        &mut self,
        path: &'static str,
        questions: impl Stream<Item = Q> + Send + 'static,
    ) -> Result<Streaming<A>, Status>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let (path, codec) = self.call(path).await?;
        let request = Request::new(questions);
        let answers = self.grpc.streaming(request, path, codec).await?;
        Ok(answers.into_inner())
    }

    /// Wait until the channel takes a call; return what each call needs.
    async fn call<Q, A>(
        &mut self,
        path: &'static str,
    ) -> Result<(PathAndQuery, ProstCodec<Q, A>), Status> {
        let ready = self.grpc.ready().await;
        ready.map_err(|error| Status::unavailable(format!("the channel is not ready: {error}")))?;
        Ok((PathAndQuery::from_static(path), ProstCodec::default()))
    }
}
