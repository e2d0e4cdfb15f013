//! IKEv1.
