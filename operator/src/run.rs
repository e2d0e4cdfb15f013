//! `towline-operator run`: one replica from its start to its end.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Client;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::admin;
use crate::build::pod::Settings;
use crate::controller::{self, Context};
use crate::endpoint::{self, Endpoint};
use crate::leader::{self, Leader};
use crate::lease::Claim;
use crate::metrics::Metrics;
use crate::reports::Reports;
use crate::tls::{Certificate, Certificates, secret_name};
use crate::webhook::Webhook;

/// The pause before the certificate is asked for again.
const RETRY: Duration = Duration::from_secs(3);
/// How long the parts have to end.
const DRAIN_LIMIT: Duration = Duration::from_secs(8);

/// What the chart tells the operator about itself.
#[derive(Debug, Clone, clap::Args)]
pub struct Run {
    /// Namespace of the operator
    #[arg(long, env = "TOWLINE_NAMESPACE")]
    namespace: String,
    /// Name of the operator's pod
    #[arg(long, env = "TOWLINE_POD_NAME")]
    pod_name: String,
    /// Address of the operator's pod
    #[arg(long, env = "TOWLINE_POD_IP")]
    pod_ip: IpAddr,
    /// Name of the installation: of its Deployment, Lease and webhook configuration
    #[arg(long, env = "TOWLINE_NAME")]
    name: String,
    /// Image of tunnel pods
    #[arg(long, env = "TOWLINE_TUNNEL_IMAGE")]
    tunnel_image: String,
    /// When that image is pulled
    #[arg(long, env = "TOWLINE_TUNNEL_IMAGE_PULL_POLICY", default_value = "IfNotPresent")]
    tunnel_image_pull_policy: String,
    /// Names of Secrets with registry credentials for gateway pods, in the namespaces of their tunnels
    #[arg(long, env = "TOWLINE_TUNNEL_IMAGE_PULL_SECRETS", value_delimiter = ',')]
    tunnel_image_pull_secrets: Vec<String>,
    /// Whether the installation has the webhook
    #[arg(long, env = "TOWLINE_WEBHOOK", default_value_t = true, action = clap::ArgAction::Set)]
    webhook: bool,
}

impl Run {
    fn settings(&self) -> Settings {
        Settings {
            image: self.tunnel_image.clone(),
            pull_policy: self.tunnel_image_pull_policy.clone(),
            pull_secrets: self.tunnel_image_pull_secrets.clone(),
            report_url: format!("https://{}.{}.svc", leader::reports_service(&self.name), self.namespace),
        }
    }

    /// Runs the replica until SIGTERM, or until it loses its Lease, which is an error.
    ///
    /// # Errors
    /// What it cannot begin without, and the loss of the Lease.
    pub async fn run(self) -> anyhow::Result<()> {
        let shutdown = CancellationToken::new();
        watch_signals(shutdown.clone())?;
        let client = Client::try_default().await.context("cannot find the API server")?;
        let reports = Reports::default();
        let metrics = Metrics::new(reports.clone());
        let (ready, is_ready) = watch::channel(false);
        let http = listen(admin::PORT).await?;
        let https = listen(leader::PORT).await?;
        let admin = tokio::spawn(admin::serve(http, metrics.clone(), is_ready, shutdown.clone()));

        let owner = leader::owner(&client, &self.name, &self.namespace).await;
        let owner = owner.inspect_err(|error| warn!(%error, "the Service for reports cannot be read")).ok();
        let Some(certificate) = self.certificate(&client, owner.clone(), &shutdown).await else { return Ok(()) };
        let (leading, is_leading) = watch::channel(false);
        let webhook = self.webhook.then(|| Webhook { settings: self.settings() });
        let served = Endpoint::new(client.clone(), reports.clone(), is_leading, webhook);
        // Ends after the controller: reports of tunnels that end are taken until then.
        let serving = CancellationToken::new();
        let endpoint = tokio::spawn(endpoint::serve(https, certificate.clone(), served, serving.clone()));
        ready.send_replace(true);

        let claim = Claim::new(client.clone(), &self.namespace, &self.name, &self.pod_name, owner);
        let result = tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            () = claim.acquire() => self.lead(&claim, client, reports, certificate, metrics, leading, &shutdown).await,
        };
        shutdown.cancel();
        serving.cancel();
        let ended = async { (admin.await, endpoint.await) };
        if tokio::time::timeout(DRAIN_LIMIT, ended).await.is_err() {
            warn!("some connections were still open at the end");
        }
        result
    }

    /// The certificate, kept fresh; none when the process ends before there is one.
    async fn certificate(
        &self,
        client: &Client,
        owner: Option<OwnerReference>,
        shutdown: &CancellationToken,
    ) -> Option<watch::Receiver<Certificate>> {
        let names = leader::dns_names(&self.name, &self.namespace);
        let certificates = Certificates::new(client.clone(), &self.namespace, &secret_name(&self.name), names, owner);
        loop {
            match certificates.ensure().await {
                Ok(certificate) => {
                    let (sender, receiver) = watch::channel(certificate);
                    tokio::spawn(certificates.maintain(sender));
                    return Some(receiver);
                }
                Err(error) => warn!(%error, "there is no certificate yet; tried again"),
            }
            tokio::select! {
                () = shutdown.cancelled() => return None,
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of a replica meet here, and nowhere else")]
    async fn lead(
        &self,
        claim: &Claim,
        client: Client,
        reports: Reports,
        certificate: watch::Receiver<Certificate>,
        metrics: Metrics,
        leading: watch::Sender<bool>,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<()> {
        info!(pod = self.pod_name, "this replica leads");
        leading.send_replace(true);
        metrics.leads(true);
        let stop = shutdown.child_token();
        let leader = Leader::new(client.clone(), &self.name, &self.namespace, self.pod_ip, self.webhook);
        let announced = tokio::spawn(leader.maintain(certificate.clone(), stop.clone()));
        let context = Context::new(client, self.settings(), reports, certificate, metrics.clone(), &self.pod_name);
        let controller = tokio::spawn(controller::run(Arc::new(context), stop.clone()));
        let lost = tokio::select! {
            () = shutdown.cancelled() => false,
            () = claim.keep() => true,
        };
        stop.cancel();
        leading.send_replace(false);
        metrics.leads(false);
        let ended = async { (announced.await, controller.await) };
        if tokio::time::timeout(DRAIN_LIMIT, ended).await.is_err() {
            warn!("the controller did not end in time");
        }
        if lost {
            // A new process begins with nothing in memory that another leader may have changed.
            anyhow::bail!("the Lease was lost; the replica starts anew");
        }
        claim.release().await;
        Ok(())
    }
}

async fn listen(port: u16) -> anyhow::Result<TcpListener> {
    // Both families where the pod has them.
    if let Ok(listener) = TcpListener::bind((std::net::Ipv6Addr::UNSPECIFIED, port)).await {
        return Ok(listener);
    }
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await.with_context(|| format!("cannot listen at port {port}"))
}

fn watch_signals(shutdown: CancellationToken) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        info!("the process was told to end");
        shutdown.cancel();
    });
    Ok(())
}
