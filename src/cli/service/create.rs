//! `peer service create`: flags to Docker's ServiceSpec, as the docker CLI writes it.

use super::mounts::Mount;
use super::ports::Ports;
use super::refs::Refs;
use super::settings::{Settings, put_label};
use super::values::{self, Ulimit};
use crate::cli::error::CliError;
use crate::cli::json::{Object, child, put, put_list, put_text, put_texts};
use crate::model::spec::PortOptions;
use crate::model::spec::hardware::{self, Device};
use clap::Args;
use serde_json::{Value, json};
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  peer service create --name web --replicas 3 --publish 80:8080 nginx:1.29
  peer service create --name api --publish published=80,target=8080,protocol=http acme/api:3
  peer service create --name db --mount type=volume,source=data,target=/data \\
      --constraint node.labels.disk==ssd postgres:18
  peer service create --name agent --mode global acme/agent:7 --verbose
  peer service create --name migrate --mode replicated-job --restart-max-attempts 3 acme/web:7 ./migrate
  peer service create -d --name api --health-cmd 'curl -f localhost' \\
      --update-order start-first --update-failure-action rollback acme/api:3";

/// Create a service and wait until its tasks run
#[derive(Debug, Args)]
#[command(override_usage = "peer service create [OPTIONS] IMAGE [COMMAND] [ARG...]", after_help = EXAMPLES)]
pub struct Create {
    /// Name of the service; one is made up without it
    #[arg(long)]
    name: Option<String>,
    /// replicated (a number of tasks), global (one on each node), replicated-job or global-job (run to their end)
    #[arg(long, value_name = "MODE", value_parser = mode, default_value = "replicated")]
    mode: String,
    /// Open a port on every node, as 80:8080[/udp] or published=80,target=8080,mode=host. The mesh's options go with
    /// it: protocol=http|h2c, sticky=source, prefer=local, proxy-protocol=v1|v2
    #[arg(short, long, value_name = "PORT")]
    publish: Vec<Ports>,
    /// Set a variable in the containers, as KEY=VALUE, or KEY for its value here
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = values::env)]
    env: Vec<String>,
    /// Read variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Label the service
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = values::pair)]
    label: Vec<(String, String)>,
    /// Label the containers
    #[arg(long, value_name = "KEY=VALUE", value_parser = values::pair)]
    container_label: Vec<(String, String)>,
    /// As type=bind|volume|tmpfs,source=…,target=…[,readonly][,…]
    #[arg(long, value_name = "MOUNT")]
    mount: Vec<Mount>,
    /// Only nodes where this holds, as node.labels.zone==east
    #[arg(long, value_name = "EXPRESSION", value_parser = values::constraint, help_heading = "Resources and placement")]
    constraint: Vec<String>,
    /// So many of a resource of the node's own, as gpu=2
    #[arg(long, value_name = "KIND=NUMBER", value_parser = values::generic, help_heading = "Resources and placement")]
    generic_resource: Vec<(String, u64)>,
    /// Spread over the values of an attribute, as spread=node.labels.zone
    #[arg(long, value_name = "PREFERENCE", value_parser = values::spread, help_heading = "Resources and placement")]
    placement_pref: Vec<String>,
    /// A name server
    #[arg(long, value_name = "IP", value_parser = values::ip)]
    dns: Vec<String>,
    /// A domain to search names in
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,
    /// An option of the resolver
    #[arg(long, value_name = "OPTION")]
    dns_option: Vec<String>,
    /// A line for the containers' hosts file, as db:10.0.0.9
    #[arg(long, value_name = "HOST:IP", value_parser = values::host)]
    pub host: Vec<String>,
    /// A parameter of the kernel, as net.core.somaxconn=1024
    #[arg(long, value_name = "KEY=VALUE", value_parser = values::full_pair)]
    sysctl: Vec<(String, String)>,
    /// A limit, as nofile=1024:2048
    #[arg(long, value_name = "LIMIT")]
    ulimit: Vec<Ulimit>,
    /// A device of the node, as /dev/ttyUSB0[:IN-CONTAINER[:PERMISSIONS]]
    #[arg(long, value_name = "DEVICE")]
    device: Vec<Device>,
    /// A further group of the container's user
    #[arg(long, value_name = "GROUP")]
    group: Vec<String>,
    #[command(flatten)]
    pub refs: Refs,
    #[command(flatten)]
    pub settings: Settings,
    /// The image, and what replaces its CMD
    #[arg(value_name = "IMAGE [COMMAND] [ARG...]", required = true, num_args = 1.., trailing_var_arg = true)]
    image: Vec<String>,
}

fn mode(text: &str) -> Result<String, String> {
    match text {
        "replicated" | "global" | "replicated-job" | "global-job" => Ok(text.to_owned()),
        _ => Err("want replicated, global, replicated-job or global-job".to_owned()),
    }
}

impl Create {
    /// The spec; the image as it was typed.
    pub fn spec(&self) -> Result<Object, CliError> {
        let mut spec = Object::new();
        put_text(&mut spec, "Name", self.name.as_deref().unwrap_or_default());
        put(&mut spec, "Labels", map(&self.label));
        let mode = match self.mode.as_str() {
            "global" => json!({ "Global": {} }),
            "global-job" => json!({ "GlobalJob": {} }),
            "replicated-job" => {
                // Both are always said: clients don't know the defaults. All at once, if nothing else is asked for.
                let all = self.settings.replicas.unwrap_or(1);
                json!({ "ReplicatedJob": { "MaxConcurrent": all, "TotalCompletions": all } })
            }
            _ => json!({ "Replicated": {} }),
        };
        put(&mut spec, "Mode", mode);
        let task = child(&mut spec, "TaskTemplate");
        put(task, "ForceUpdate", 0);
        put(task, "Resources", json!({ "Limits": {}, "Reservations": {} }));
        if !self.generic_resource.is_empty() {
            let list: Vec<Value> = self.generic_resource.iter().map(values::generic_json).collect();
            put_list(child(child(task, "Resources"), "Reservations"), "GenericResources", list);
        }
        let placement = child(task, "Placement");
        put_texts(placement, "Constraints", self.constraint.clone());
        put_list(
            placement,
            "Preferences",
            self.placement_pref.iter().map(|attribute| values::spread_json(attribute)).collect(),
        );
        self.container(child(task, "ContainerSpec"))?;
        let endpoint = child(&mut spec, "EndpointSpec");
        put(endpoint, "Mode", "vip");
        put_list(
            endpoint,
            "Ports",
            self.publish.iter().flat_map(|ports| &ports.0).map(super::ports::Port::json).collect(),
        );
        for port in self.publish.iter().flat_map(|ports| &ports.0) {
            if port.options != PortOptions::default() {
                port.put_options(&mut spec);
            }
        }
        if !self.device.is_empty() {
            put_label(&mut spec, hardware::DEVICES, &hardware::list(&self.device));
        }
        self.settings.apply(&mut spec)?;
        Ok(spec)
    }

    fn container(&self, container: &mut Object) -> Result<(), CliError> {
        let (image, args) = self.image.split_first().ok_or_else(|| CliError::misuse("an image is needed"))?;
        if image.is_empty() {
            return Err(CliError::misuse("the image's name is empty"));
        }
        put(container, "Image", image.as_str());
        put_texts(container, "Args", args.to_vec());
        put(container, "Init", false);
        let mut env = Vec::new();
        for file in &self.env_file {
            env.extend(values::env_file(file).map_err(|why| {
                CliError::new(why)
                    .hint("want a file with a KEY=VALUE on each line; single variables are set with --env")
            })?);
        }
        env.extend(self.env.iter().cloned());
        put_texts(container, "Env", values::last_of_each_name(env));
        if !self.container_label.is_empty() {
            put(container, "Labels", map(&self.container_label));
        }
        let mut targets: Vec<&str> = self.mount.iter().map(Mount::target).collect();
        targets.sort_unstable();
        if let Some(twice) = targets.windows(2).find(|pair| pair.first() == pair.last()).and_then(|pair| pair.first()) {
            return Err(CliError::misuse(format!("--mount: two mounts have the target {twice}")));
        }
        put_list(container, "Mounts", self.mount.iter().cloned().map(Value::from).collect());
        put_texts(container, "Hosts", self.host.clone());
        put_texts(container, "Groups", self.group.clone());
        let dns = child(container, "DNSConfig");
        put_texts(dns, "Nameservers", self.dns.clone());
        put_texts(dns, "Search", self.dns_search.clone());
        put_texts(dns, "Options", self.dns_option.clone());
        if !self.sysctl.is_empty() {
            put(container, "Sysctls", map(&self.sysctl));
        }
        let mut ulimits: Vec<&Ulimit> = self.ulimit.iter().collect();
        ulimits.sort_by_key(|ulimit| &ulimit.name);
        put_list(container, "Ulimits", ulimits.into_iter().map(Ulimit::json).collect());
        Ok(())
    }
}

fn map(pairs: &[(String, String)]) -> Value {
    Value::Object(pairs.iter().map(|(key, value)| (key.clone(), json!(value))).collect())
}
