//! FreeRADIUS: a RADIUS server with users, EAP, a log of accounting, and the program that sends it disconnect requests.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::netns::Namespace;
use crate::process::{Process, run};
use crate::tool;

/// How long the server may take to start.
const START: Duration = Duration::from_secs(30);

/// A running server.
#[derive(Debug)]
pub struct FreeRadius {
    process: Process,
    folder: PathBuf,
    secret: String,
}

impl FreeRadius {
    /// Starts a server in `namespace` for clients that have the secret. `users` is a file of the module `files`.
    ///
    /// Requests of authentication must carry a Message-Authenticator; whether all answers do is `signs`: of its own accord this
    /// version puts one into those of EAP alone.
    pub fn start(namespace: &Namespace, secret: &str, users: &str, signs: bool) -> Result<Self> {
        let folder = tool::target().join("peers").join(namespace.name());
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("users"), users)?;
        fs::write(folder.join("radiusd.conf"), configuration(&folder.display().to_string(), secret, signs))?;
        let mut command = namespace.exec("freeradius");
        command.args(["-f", "-x", "-l", "stdout", "-n", "radiusd", "-D", "/usr/share/freeradius", "-d"]).arg(&folder);
        let mut process = Process::spawn(command, folder.join("server.log"))?;
        process.wait_for_line("Ready to process requests", START)?;
        Ok(Self { process, folder, secret: secret.to_owned() })
    }

    /// All that it has written so far.
    pub fn log(&self) -> Result<String> {
        self.process.output()
    }

    /// The records of accounting that it has taken so far.
    pub fn accounting(&self) -> Result<Vec<String>> {
        let path = self.folder.join("accounting");
        let text = if path.exists() { fs::read_to_string(&path)? } else { String::new() };
        Ok(text.split("\n\n").filter(|record| !record.trim().is_empty()).map(str::to_owned).collect())
    }

    /// Sends a request that a session be ended, with one attribute a line, and returns what came of it.
    pub fn disconnect(&self, namespace: &Namespace, to: &str, attributes: &str) -> Result<String> {
        let request = self.folder.join("request");
        fs::write(&request, attributes)?;
        // It ends with an error when the answer is a refusal.
        let mut command = namespace.exec("sh");
        command.args(["-c", "radclient -x -r 3 -t 3 -f \"$0\" \"$1\" disconnect \"$2\" 2>&1 || true"]);
        command.arg(&request).args([to, &self.secret]);
        run(&mut command).context("radclient")
    }
}

fn configuration(folder: &str, secret: &str, signs: bool) -> String {
    // Each part on a line of its own.
    let update = if signs { "update reply {\n&Message-Authenticator := 0x00\n}" } else { "" };
    format!(
        r#"
prefix = /usr
libdir = /usr/lib/freeradius
logdir = {folder}
run_dir = {folder}
raddbdir = {folder}
max_request_time = 10
cleanup_delay = 2
security {{
  allow_core_dumps = no
  max_attributes = 200
  reject_delay = 0
  status_server = yes
}}
client any {{
  ipaddr = 0.0.0.0/0
  secret = "{secret}"
  require_message_authenticator = yes
}}
modules {{
  pap {{
  }}
  chap {{
  }}
  mschap {{
    use_mppe = yes
  }}
  eap {{
    default_eap_type = mschapv2
    timer_expire = 60
    ignore_unknown_eap_types = no
    max_sessions = 1024
    md5 {{
    }}
    mschapv2 {{
    }}
  }}
  always ok {{
    rcode = ok
  }}
  files {{
    usersfile = {folder}/users
  }}
  detail {{
    filename = {folder}/accounting
  }}
}}
server default {{
  listen {{
    type = auth
    ipaddr = *
    port = 1812
  }}
  listen {{
    type = acct
    ipaddr = *
    port = 1813
  }}
  authorize {{
    chap
    mschap
    eap {{
      ok = return
    }}
    files
    pap
  }}
  authenticate {{
    Auth-Type PAP {{
      pap
    }}
    Auth-Type CHAP {{
      chap
    }}
    Auth-Type MS-CHAP {{
      mschap
    }}
    eap
  }}
  post-auth {{
    {update}
    Post-Auth-Type REJECT {{
      {update}
    }}
  }}
  accounting {{
    detail
    ok
  }}
}}
"#
    )
}
