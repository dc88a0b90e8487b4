//! The floor of everything else: the engine, asked over its socket by nobody but this.

use std::{collections::HashMap, time::Duration};

use bollard::{
    API_DEFAULT_VERSION, Docker,
    container::{AttachContainerResults, LogOutput},
    exec::{StartExecOptions, StartExecResults},
    models::{ContainerCreateBody, ExecConfig, HostConfig, HostConfigLogConfig, MountType},
    query_parameters::{
        AttachContainerOptionsBuilder, CreateContainerOptions, InspectContainerOptions,
        KillContainerOptions, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
        StartContainerOptions,
    },
};
use futures_util::StreamExt;
use tempfile::TempDir;

/// What is made here has it, so that nothing else is removed.
const LABEL: &str = "dev.boxyard.bench";
const SOCKET: &str = "/var/run/docker.sock";

/// The engine of this machine.
pub(crate) struct Engine {
    docker: Docker,
    /// Stands for what the plugin mounts into its containers.
    mounted: TempDir,
}

impl Engine {
    /// Looks for an engine that has an image; says why there is none.
    pub(crate) async fn find(image: &str) -> Result<Self, String> {
        let docker = Docker::connect_with_unix(SOCKET, 300, API_DEFAULT_VERSION)
            .map_err(|error| format!("{SOCKET}: {error}"))?;
        let found = docker.inspect_image(image).await;
        found.map_err(|error| format!("image {image} of the engine at {SOCKET}: {error}"))?;
        let engine = Self {
            docker,
            mounted: tempfile::tempdir().unwrap(),
        };
        engine.remove_leftovers().await;
        Ok(engine)
    }

    async fn remove_leftovers(&self) {
        let filters = HashMap::from([("label", vec![LABEL])]);
        let options = ListContainersOptionsBuilder::new()
            .all(true)
            .filters(&filters)
            .build();
        for found in self.docker.list_containers(Some(options)).await.unwrap() {
            self.remove(&found.id.unwrap()).await;
        }
    }

    /// Returns what makes a container like another that sleeps.
    pub(crate) async fn like(&self, container: &str) -> ContainerCreateBody {
        let inspected = self
            .docker
            .inspect_container(container, None::<InspectContainerOptions>);
        let inspected = inspected.await.unwrap();
        let config = serde_json::to_value(inspected.config.unwrap()).unwrap();
        let mut body: ContainerCreateBody = serde_json::from_value(config).unwrap();
        let mut host_config = inspected.host_config.unwrap();
        for mount in host_config.mounts.iter_mut().flatten() {
            if mount.typ == Some(MountType::BIND) {
                mount.source = Some(self.mounted.path().to_string_lossy().into_owned());
            }
        }
        body.host_config = Some(host_config);
        body.hostname = None;
        body.entrypoint = Some(vec!["sleep".into(), "100000".into()]);
        body.cmd = Some(Vec::new());
        body.labels = Some(HashMap::from([(LABEL.into(), String::new())]));
        body
    }

    /// Makes a container and starts it.
    pub(crate) async fn start(&self, body: &ContainerCreateBody) -> String {
        let id = self.create(body.clone()).await;
        let started = self
            .docker
            .start_container(&id, None::<StartContainerOptions>);
        started.await.unwrap();
        id
    }

    async fn create(&self, body: ContainerCreateBody) -> String {
        let created = self
            .docker
            .create_container(None::<CreateContainerOptions>, body);
        created.await.unwrap().id
    }

    /// Kills a container and removes it.
    pub(crate) async fn end(&self, id: &str) {
        let killed = self.docker.kill_container(id, None::<KillContainerOptions>);
        killed.await.unwrap();
        self.remove(id).await;
    }

    async fn remove(&self, id: &str) {
        let options = RemoveContainerOptionsBuilder::new()
            .force(true)
            .v(true)
            .build();
        let removed = self.docker.remove_container(id, Some(options));
        removed.await.unwrap();
    }

    /// Runs a shell's command in a container, and looks how it ended.
    pub(crate) async fn exec(&self, id: &str, line: &str) {
        let config = ExecConfig {
            cmd: Some(vec!["sh".into(), "-c".into(), line.into()]),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            ..ExecConfig::default()
        };
        let exec = self.docker.create_exec(id, config).await.unwrap().id;
        let started = self.docker.start_exec(&exec, None::<StartExecOptions>);
        let StartExecResults::Attached { mut output, .. } = started.await.unwrap() else {
            panic!("it was not detached");
        };
        while let Some(output) = output.next().await {
            output.unwrap();
        }
        let ended = self.docker.inspect_exec(&exec).await.unwrap();
        assert_eq!(ended.exit_code, Some(0));
    }

    /// Runs a program as a container of its own and reads the bytes that it writes by attaching to
    /// it, while the engine logs them with this driver or as it does where nobody says anything;
    /// returns how long that took from the first of them on.
    pub(crate) async fn attach(
        &self,
        like: &ContainerCreateBody,
        log_driver: Option<&str>,
        argv: &[String],
        bytes: u64,
    ) -> Duration {
        let mut body = like.clone();
        body.entrypoint = Some(argv.to_vec());
        body.attach_stdout = Some(true);
        body.host_config = body.host_config.map(|host_config| HostConfig {
            log_config: log_driver.map(|driver| HostConfigLogConfig {
                typ: Some(driver.into()),
                config: None,
            }),
            ..host_config
        });
        let id = self.create(body).await;
        let options = AttachContainerOptionsBuilder::new()
            .stdout(true)
            .stream(true)
            .build();
        let attached = self.docker.attach_container(&id, Some(options)).await;
        let AttachContainerResults { mut output, .. } = attached.unwrap();
        let started = self
            .docker
            .start_container(&id, None::<StartContainerOptions>);
        let mut began = None;
        let mut count = 0;
        let drained = async {
            while let Some(output) = output.next().await {
                began.get_or_insert_with(std::time::Instant::now);
                if let LogOutput::StdOut { message } = output.unwrap() {
                    count += message.len() as u64;
                }
            }
        };
        let (started, ()) = tokio::join!(started, drained);
        started.unwrap();
        assert_eq!(count, bytes);
        let took = began.unwrap().elapsed();
        self.remove(&id).await;
        took
    }
}
