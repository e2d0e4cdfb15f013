//! Shim.
use towline_tunnel::report::Report;
#[derive(Clone, Default)]
pub struct Reports(std::sync::Arc<std::sync::Mutex<Vec<(String, Report)>>>);
pub struct PodKey { pub namespace: String, pub tunnel: String, pub pod: String }
impl Reports { pub fn record(&self, key: PodKey, _uid: String, r: Report) { self.0.lock().unwrap().push((key.pod, r)); }
 pub fn len(&self) -> usize { self.0.lock().unwrap().len() } }
