//! Files and archives.

use boxyard_plugin_api::{
    ByteSink, ByteSource, Call, Error, ErrorCode, FileInfo, GetArchive, MakeDirectory, PutArchive,
    ReadFile, RemovePath, Result, WriteFile, pipe,
};
use serde::de::IgnoredAny;

use super::{Client, request::Request, routes::Documents};

/// The longest listing that is taken, in bytes.
const MAX_LISTING: usize = 64 * 1024 * 1024;

impl Client {
    fn request(&self, document: &Documents<'_>) -> Result<Request> {
        Request::open(&self.routes, document)
    }

    /// Does [`Sandbox::read_file`](boxyard_plugin_api::Sandbox::read_file).
    ///
    /// # Errors
    ///
    /// As that, and the agent is gone.
    pub async fn read_file(&self, request: &ReadFile, to: ByteSink, call: &Call) -> Result<()> {
        self.fetch(&Documents::ReadFile(request), to, call).await
    }

    /// Does [`Sandbox::get_archive`](boxyard_plugin_api::Sandbox::get_archive).
    ///
    /// # Errors
    ///
    /// As that, and the agent is gone.
    pub async fn get_archive(&self, request: &GetArchive, to: ByteSink, call: &Call) -> Result<()> {
        self.fetch(&Documents::GetArchive(request), to, call).await
    }

    async fn fetch(&self, document: &Documents<'_>, to: ByteSink, call: &Call) -> Result<()> {
        let request = self.request(document)?;
        let IgnoredAny = request.transfer(None, Some(&to), call).await?;
        to.finish().await
    }

    /// Does [`Sandbox::write_file`](boxyard_plugin_api::Sandbox::write_file).
    ///
    /// # Errors
    ///
    /// As that, and the agent is gone.
    pub async fn write_file(
        &self,
        request: &WriteFile,
        from: ByteSource,
        call: &Call,
    ) -> Result<()> {
        let request = self.request(&Documents::WriteFile(request))?;
        let IgnoredAny = request.transfer(Some(from), None, call).await?;
        Ok(())
    }

    /// Does [`Sandbox::put_archive`](boxyard_plugin_api::Sandbox::put_archive).
    ///
    /// # Errors
    ///
    /// As that, and the agent is gone.
    pub async fn put_archive(
        &self,
        request: &PutArchive,
        from: ByteSource,
        call: &Call,
    ) -> Result<()> {
        let request = self.request(&Documents::PutArchive(request))?;
        let IgnoredAny = request.transfer(Some(from), None, call).await?;
        Ok(())
    }

    /// Does [`Sandbox::stat`](boxyard_plugin_api::Sandbox::stat).
    ///
    /// # Errors
    ///
    /// As that, and the agent is gone.
    pub async fn stat(&self, path: &str, call: &Call) -> Result<FileInfo> {
        self.request(&Documents::Stat { path })?.answer(call).await
    }

    /// Does [`Sandbox::list`](boxyard_plugin_api::Sandbox::list).
    ///
    /// # Errors
    ///
    /// As that, and the agent is gone.
    pub async fn list(&self, path: &str, call: &Call) -> Result<Vec<FileInfo>> {
        let request = self.request(&Documents::List { path })?;
        let (sink, source) = pipe();
        // Each has its end for itself: where one fails, the other breaks off.
        let listing = async move {
            let IgnoredAny = request.transfer(None, Some(&sink), call).await?;
            sink.finish().await
        };
        let reading = async move { source.read_to_end(MAX_LISTING).await };
        let lines = match tokio::join!(listing, reading) {
            (Err(error), _) if error.code() != ErrorCode::CLOSED => return Err(error),
            // Nobody reads any more: why, the reader says.
            (_, lines) => lines?,
        };
        let lines = lines
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty());
        let entries: Result<Vec<FileInfo>, _> = lines.map(serde_json::from_slice).collect();
        let mut entries = entries.map_err(|error| {
            Error::internal(format_args!("the agent's listing is malformed: {error}"))
        })?;
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// Does [`Sandbox::remove`](boxyard_plugin_api::Sandbox::remove).
    ///
    /// # Errors
    ///
    /// As that, and the agent is gone.
    pub async fn remove(&self, request: &RemovePath, call: &Call) -> Result<()> {
        let request = self.request(&Documents::Remove(request))?;
        let IgnoredAny = request.answer(call).await?;
        Ok(())
    }

    /// Does [`Sandbox::make_directory`](boxyard_plugin_api::Sandbox::make_directory).
    ///
    /// # Errors
    ///
    /// As that, and the agent is gone.
    pub async fn make_directory(&self, request: &MakeDirectory, call: &Call) -> Result<()> {
        let request = self.request(&Documents::MakeDirectory(request))?;
        let IgnoredAny = request.answer(call).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use boxyard_plugin_api::CallController;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;
    use crate::protocol::{
        self, Decoder, FromAgent, FromHost, Hello, MAX_DATA, Setup, Stream, WINDOW,
    };

    async fn say(stream: &mut DuplexStream, message: &FromAgent<'_>) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes).unwrap();
        stream.write_all(&bytes).await.unwrap();
    }

    /// Lists without end, as fast as it may, until nobody listens.
    async fn endless_agent(mut stream: DuplexStream) {
        let hello = Hello {
            protocol: protocol::VERSION,
            pid: 1,
            secret: None,
        };
        say(&mut stream, &FromAgent::Hello(hello)).await;
        let (channel, output) = (1, Stream::Stdout);
        let piece = [b'\n'; MAX_DATA];
        let mut decoder = Decoder::new();
        let mut credit = 0;
        loop {
            while let Some(frame) = decoder.next_frame().unwrap() {
                match FromHost::parse(frame).unwrap() {
                    FromHost::Open { .. } => credit += WINDOW as usize,
                    FromHost::Credit { bytes, .. } => credit += bytes as usize,
                    FromHost::Close { .. } => {
                        for stream_kind in [Stream::Stdout, Stream::Stderr] {
                            let end = FromAgent::End {
                                channel,
                                stream: stream_kind,
                            };
                            say(&mut stream, &end).await;
                        }
                        let document = br#"{"error":{"errno":32,"message":""}}"#;
                        return say(&mut stream, &FromAgent::Reply { channel, document }).await;
                    }
                    _ => {}
                }
            }
            while credit >= MAX_DATA {
                credit -= MAX_DATA;
                let data = FromAgent::Data {
                    channel,
                    stream: output,
                    bytes: &piece,
                };
                say(&mut stream, &data).await;
            }
            if stream.read_buf(decoder.buffer()).await.unwrap() == 0 {
                return;
            }
        }
    }

    #[tokio::test]
    async fn a_listing_without_end_is_cut_off() {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let agent = tokio::spawn(endless_agent(theirs));
        let (client, work) = Client::connect(ours, Setup::default()).await.unwrap();
        tokio::spawn(work);
        let call = CallController::new(0).call();
        let error = client.list("/", &call).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::RESOURCE_EXHAUSTED);
        drop(client);
        agent.await.unwrap();
    }
}
