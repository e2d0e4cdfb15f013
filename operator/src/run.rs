//! `towline-operator run`: one replica from its start to its end.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Client;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::admin::{self, Health};
use crate::build::pod::Settings;
use crate::cache::{Cache, Writers};
use crate::controller::{self, Context, Parts};
use crate::endpoint::server::{FIRST_REQUEST_LIMIT, Server};
use crate::endpoint::{Endpoint, MAX_REPORT_CONNECTIONS, MAX_WEBHOOK_CONNECTIONS};
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
    /// UID of the operator's pod: a pod of the same name may come after it
    #[arg(long, env = "TOWLINE_POD_UID")]
    pod_uid: String,
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
        let (cache, writers) = Cache::new();
        let (reports, metrics, health) = (Reports::default(), Metrics::default(), Health::default());
        metrics.watch(cache.tunnels.clone(), cache.users.clone(), reports.clone());
        let http = listen(admin::PORT).await?;
        let (for_reports, for_webhook) = (listen(leader::REPORTS_PORT).await?, listen(leader::WEBHOOK_PORT).await?);
        let admin = tokio::spawn(admin::serve(http, metrics.clone(), health.clone(), shutdown.clone()));

        let owner = leader::owner(&client, &self.name, &self.namespace).await;
        let owner = owner.inspect_err(|error| warn!(%error, "the Service for reports cannot be read")).ok();
        let certificate = self.certificate(&client, owner.clone(), &metrics, &shutdown).await;
        let Some(certificate) = certificate else { return Ok(()) };
        let (leading, is_leading) = watch::channel(false);
        let webhook = self.webhook.then(|| Webhook { settings: self.settings() });
        let endpoint =
            Endpoint::new(client.clone(), reports.clone(), cache.clone(), is_leading, webhook, metrics.clone());
        // They end after the controller: reports of tunnels that end are taken until then.
        let serving = CancellationToken::new();
        let server = |listener, router, max_connections| {
            let (certificate, first_request) = (certificate.clone(), FIRST_REQUEST_LIMIT);
            let server = Server { listener, certificate, router, max_connections, first_request };
            tokio::spawn(server.serve(serving.clone()))
        };
        let reported = server(for_reports, endpoint.clone().report_router(), MAX_REPORT_CONNECTIONS);
        let reviewed = server(for_webhook, endpoint.webhook_router(), MAX_WEBHOOK_CONNECTIONS);
        health.certified();

        let holder = format!("{}_{}", self.pod_name, self.pod_uid);
        let claim = Claim::new(client.clone(), &self.namespace, &self.name, &holder, owner);
        let parts = Parts { client, settings: self.settings(), reports, cache, certificate, metrics, health };
        let result = tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            since = claim.acquire() => self.lead(&claim, since, parts, writers, leading, &shutdown).await,
        };
        shutdown.cancel();
        serving.cancel();
        let ended = async { (admin.await, reported.await, reviewed.await) };
        if timeout(DRAIN_LIMIT, ended).await.is_err() {
            warn!("some connections were still open at the end");
        }
        result
    }

    /// The certificate, kept fresh; none when the process ends before there is one.
    async fn certificate(
        &self,
        client: &Client,
        owner: Option<OwnerReference>,
        metrics: &Metrics,
        shutdown: &CancellationToken,
    ) -> Option<watch::Receiver<Certificate>> {
        let names = leader::dns_names(&self.name, &self.namespace);
        let certificates = Certificates::new(client.clone(), &self.namespace, &secret_name(&self.name), names, owner);
        loop {
            match certificates.ensure().await {
                Ok(certificate) => {
                    metrics.certificate(certificate.expires);
                    let (sender, receiver) = watch::channel(certificate);
                    tokio::spawn(certificates.maintain(sender, metrics.clone()));
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

    /// Leads until `shutdown`, or until the Lease, last renewed at `since`, is lost.
    async fn lead(
        &self,
        claim: &Claim,
        since: Instant,
        parts: Parts,
        writers: Writers,
        leading: watch::Sender<bool>,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<()> {
        info!(pod = self.pod_name, "this replica leads");
        leading.send_replace(true);
        let metrics = parts.metrics.clone();
        metrics.leads(true);
        let stop = shutdown.child_token();
        let leader = Leader::new(parts.client.clone(), &self.name, &self.namespace, self.pod_ip, self.webhook);
        let mut announced = tokio::spawn(leader.maintain(parts.certificate.clone(), stop.clone()));
        let context = Arc::new(Context::new(parts, &self.pod_name));
        let mut controller = tokio::spawn(controller::run(context, writers, stop.clone()));
        let lost = tokio::select! {
            biased;
            () = shutdown.cancelled() => None,
            () = claim.keep(since) => Some("the Lease was lost; the replica starts anew"),
            _ = &mut controller => Some("the controller ended; the replica starts anew"),
        };
        leading.send_replace(false);
        metrics.leads(false);
        if let Some(why) = lost {
            // Another replica may lead from now on: nothing of this one may write any more. A new process begins with nothing
            // in memory that the other may have changed.
            announced.abort();
            controller.abort();
            anyhow::bail!(why);
        }
        stop.cancel();
        let ended = async { (&mut announced).await.and((&mut controller).await) };
        match timeout(DRAIN_LIMIT, ended).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "a part of the replica failed"),
            Err(_) => {
                warn!("the controller did not end in time");
                announced.abort();
                controller.abort();
            }
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
