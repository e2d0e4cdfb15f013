//! Extended authentication (XAUTH, draft-beaulieu-ike-xauth-02), as the end that is asked who its user is.
//!
//! ```text
//!   this end                                          peer
//!                                             <-      REQUEST(USER-NAME="" USER-PASSWORD="")
//!   REPLY(USER-NAME="joe" USER-PASSWORD="…")  ->
//!                                             <-      SET(STATUS=OK)
//!   ACK                                       ->
//! ```
//!
//! The methods of phase 1 say whether it follows (section 7.2): with a user this end offers no other, so that a gateway without
//! XAUTH is refused, and an ISAKMP SA protects nothing else before the peer has said OK. Nobody sits here: what only a person can
//! answer, a one-time password or a second factor, is refused (STATUS=FAIL), and so is a second question for the same password,
//! for it says that the first answer was wrong.

use std::fmt;
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::attribute::{self, Attribute};
use super::error::Error;
use super::registry::{XauthAttribute, XauthStatus, XauthType};
use super::sa::IsakmpSa;
use super::{Event, Ike, Timer};
use crate::buffer::Port;
use crate::wire::printable;

/// How long the peer may take from the end of phase 1 to its verdict, a RADIUS server behind it and lost messages included.
const PATIENCE: Duration = Duration::from_secs(60);

/// The most questions before a verdict. Honest peers ask once, or for the name and the password apart.
const MAX_QUESTIONS: u8 = 4;

/// The longest text of a peer that is shown, in characters.
const MAX_TEXT: usize = 160;

/// Who this end is by XAUTH.
#[derive(Clone)]
pub struct User {
    /// The name, with a domain in it where the gateway wants one.
    pub name: Zeroizing<String>,
    /// The password, which the gateway gets in the clear under the protection of phase 1.
    pub password: Zeroizing<String>,
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User").finish_non_exhaustive()
    }
}

/// How far XAUTH is under one ISAKMP SA.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Phase 1 agreed on it, and the peer has not said OK.
    awaited: bool,
    questions: u8,
    /// The password was sent and not judged yet.
    told: bool,
    /// The last text of the peer: printable and bounded.
    message: String,
}

impl Progress {
    pub(super) fn new(awaited: bool) -> Self {
        Self { awaited, ..Self::default() }
    }

    /// Whether the peer has still to say OK.
    pub(super) fn is_awaited(&self) -> bool {
        self.awaited
    }

    /// Answers a REQUEST: the attributes of the REPLY, and why it is the end, if it is.
    pub(super) fn answer(
        &mut self,
        user: Option<&User>,
        request: &[Attribute<'_>],
    ) -> (Zeroizing<Vec<u8>>, Option<Error>) {
        self.listen(request);
        self.questions = self.questions.saturating_add(1);
        let mut reply = Zeroizing::new(Vec::new());
        // Section 6.2: the type comes back as it is, and only if it was there.
        if let Some(kind) = stated_type(request) {
            attribute::write_basic(&mut reply, XauthAttribute::TYPE.0, kind.0);
        }
        match self.proof(user, request) {
            Ok(proof) => {
                for (attribute, value) in proof {
                    attribute::write_variable(&mut reply, attribute.0, value.as_bytes());
                }
                (reply, None)
            }
            Err(error) => {
                attribute::write_basic(&mut reply, XauthAttribute::STATUS.0, XauthStatus::FAIL.0);
                (reply, Some(error))
            }
        }
    }

    /// What is asked for, in the order of the request.
    fn proof<'u>(
        &mut self,
        user: Option<&'u User>,
        request: &[Attribute<'_>],
    ) -> Result<Vec<(XauthAttribute, &'u str)>, Error> {
        let user = user.ok_or(Error::XauthUnconfigured)?;
        if let Some(wanted) = unanswerable(request) {
            return Err(Error::XauthUnanswerable { wanted, message: self.message.clone() });
        }
        let proof: Vec<_> = request
            .iter()
            .filter_map(|asked| match XauthAttribute(asked.class) {
                asked @ XauthAttribute::USER_NAME => Some((asked, user.name.as_str())),
                asked @ (XauthAttribute::USER_PASSWORD | XauthAttribute::PASSCODE) => {
                    Some((asked, user.password.as_str()))
                }
                // A domain stands in the name where there is one, and whoever wants it apart may say so in its verdict.
                _ => None,
            })
            .collect();
        let tells = proof.iter().any(|(attribute, _)| *attribute != XauthAttribute::USER_NAME);
        if self.questions > MAX_QUESTIONS || (tells && self.told) {
            return Err(self.refused());
        }
        self.told |= tells;
        Ok(proof)
    }

    /// What a SET says about who we are; none if it is about something else.
    pub(super) fn judge(&mut self, set: &[Attribute<'_>]) -> Option<Result<(), Error>> {
        let status = find(set, XauthAttribute::STATUS)?.number();
        self.listen(set);
        if status != Some(XauthStatus::OK.0.into()) {
            return Some(Err(self.refused()));
        }
        *self = Self::default();
        Some(Ok(()))
    }

    /// Why the SA goes that the peer has deleted before its verdict.
    fn deleted(&self) -> Error {
        if self.told { self.refused() } else { Error::PeerDeleted }
    }

    fn refused(&self) -> Error {
        Error::XauthRefused { message: self.message.clone() }
    }

    fn listen(&mut self, attributes: &[Attribute<'_>]) {
        if let Some(message) = find(attributes, XauthAttribute::MESSAGE).filter(|message| !message.value.is_empty()) {
            self.message = printable(message.value, MAX_TEXT);
        }
    }
}

/// Whether any of the attributes is one of XAUTH.
pub(super) fn is_about(attributes: &[Attribute<'_>]) -> bool {
    attributes.iter().any(|attribute| XauthAttribute(attribute.class).name().is_some())
}

fn find<'a, 'b>(attributes: &'b [Attribute<'a>], wanted: XauthAttribute) -> Option<&'b Attribute<'a>> {
    attributes.iter().find(|attribute| attribute.class == wanted.0)
}

/// The type of a request; a number that is none of two octets stands for one that is not known.
fn stated_type(request: &[Attribute<'_>]) -> Option<XauthType> {
    let number = find(request, XauthAttribute::TYPE)?.number();
    Some(XauthType(number.and_then(|number| u16::try_from(number).ok()).unwrap_or(u16::MAX)))
}

/// What a request has that no configured password answers.
fn unanswerable(request: &[Attribute<'_>]) -> Option<&'static str> {
    let asks = |wanted| find(request, wanted).is_some();
    match stated_type(request).unwrap_or(XauthType::GENERIC) {
        XauthType::GENERIC => {}
        XauthType::RADIUS_CHAP => return Some("an answer to a challenge (XAUTH-TYPE RADIUS-CHAP)"),
        XauthType::OTP | XauthType::S_KEY => return Some("a one-time password (XAUTH-TYPE OTP or S/KEY)"),
        _ => return Some("a proof of a type that nobody knows (XAUTH-TYPE)"),
    }
    if asks(XauthAttribute::NEXT_PIN) {
        Some("a new PIN (XAUTH-NEXT-PIN)")
    } else if asks(XauthAttribute::ANSWER) {
        Some("an answer of a person (XAUTH-ANSWER)")
    } else if asks(XauthAttribute::PASSCODE) && asks(XauthAttribute::USER_PASSWORD) {
        // Alone it is another word for the password with many gateways, as racoon and vpnc take it.
        Some("a passcode beside the password (XAUTH-PASSCODE)")
    } else {
        None
    }
}

impl Ike {
    /// Phase 1 is complete, and the peer has agreed to ask who our user is.
    pub(super) fn begin_xauth(&mut self, now: Instant, sa: IsakmpSa) {
        self.timers.set(Timer::Xauth(sa.id), now + PATIENCE);
        self.floated |= sa.port == Port::NatT;
        self.make_room(now);
        self.isakmp.push(sa);
        self.heard(now);
        self.keep_alive(now);
    }

    /// The peer has said what it thinks of our user.
    pub(super) fn xauth_judged(&mut self, now: Instant, isakmp: u32, verdict: Result<(), Error>) {
        match verdict {
            Err(error) => self.end_by_xauth(now, error),
            Ok(()) if self.timers.deadline(Timer::Xauth(isakmp)).is_some() => {
                self.timers.stop(Timer::Xauth(isakmp));
                if let Some(index) = self.isakmp.iter().position(|sa| sa.id == isakmp) {
                    let sa = self.isakmp.remove(index);
                    let rekey = self.is_established() || !self.pairs.is_empty();
                    self.isakmp_established(now, sa, rekey, false);
                }
            }
            Ok(()) => {}
        }
    }

    /// The peer deleted an ISAKMP SA that it had still to say OK under.
    pub(super) fn xauth_deleted(&mut self, now: Instant, isakmp: u32) {
        let Some(sa) = self.isakmp.iter().find(|sa| sa.id == isakmp) else { return };
        match sa.xauth.deleted() {
            error @ Error::XauthRefused { .. } => self.end_by_xauth(now, error),
            error => self.xauth_failed(now, isakmp, error),
        }
    }

    /// The peer has said nothing for too long.
    pub(super) fn xauth_timer(&mut self, now: Instant, isakmp: u32) {
        let Some(sa) = self.isakmp.iter().find(|sa| sa.id == isakmp) else { return };
        let error = Error::XauthTimeout { asked: sa.xauth.questions > 0 };
        self.xauth_failed(now, isakmp, error);
    }

    /// XAUTH did not come about, and what exists goes on.
    fn xauth_failed(&mut self, now: Instant, isakmp: u32, error: Error) {
        self.remove_isakmp(now, isakmp, true);
        self.begin_failed(now, error);
    }

    /// Ends everything: section 6 has the peer do the same, and one that hears the same password again and again locks the user out.
    pub(super) fn end_by_xauth(&mut self, now: Instant, error: Error) {
        self.events.push_back(Event::Failed(error));
        self.close(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user() -> User {
        User { name: Zeroizing::new("joe".to_owned()), password: Zeroizing::new("foobar".to_owned()) }
    }

    /// Attributes by class and value.
    type Asked<'a> = &'a [(XauthAttribute, &'a [u8])];

    fn attributes<'a>(list: Asked<'a>) -> Vec<Attribute<'a>> {
        list.iter().map(|(class, value)| Attribute { class: class.0, value }).collect()
    }

    fn answer(progress: &mut Progress, request: Asked<'_>) -> (Vec<(u16, Vec<u8>)>, Option<Error>) {
        let (reply, end) = progress.answer(Some(&user()), &attributes(request));
        let read = attribute::read(&reply).unwrap();
        (read.iter().map(|found| (found.class, found.value.to_vec())).collect(), end)
    }

    const NAME: XauthAttribute = XauthAttribute::USER_NAME;
    const PASSWORD: XauthAttribute = XauthAttribute::USER_PASSWORD;

    /// The error of a REPLY that says STATUS=FAIL.
    fn refusal(request: Asked<'_>) -> Error {
        let (reply, end) = answer(&mut Progress::new(true), request);
        assert_eq!(reply.last(), Some(&(XauthAttribute::STATUS.0, vec![0, 0])), "{request:?}");
        assert!(reply.iter().all(|(class, _)| [XauthAttribute::TYPE.0, XauthAttribute::STATUS.0].contains(class)));
        end.unwrap()
    }

    #[test]
    fn what_is_asked_for_is_answered_in_its_order_and_the_type_comes_back_only_if_it_was_there() {
        let named = |class: XauthAttribute, value: &str| (class.0, value.as_bytes().to_vec());
        let (reply, end) = answer(&mut Progress::new(true), &[(NAME, b""), (PASSWORD, b"")]);
        assert_eq!((reply, end), (vec![named(NAME, "joe"), named(PASSWORD, "foobar")], None));
        let request =
            [(PASSWORD, &b""[..]), (XauthAttribute::DOMAIN, b""), (XauthAttribute::TYPE, &[0, 0]), (NAME, b"")];
        let (reply, end) = answer(&mut Progress::new(true), &request);
        let expected = vec![(XauthAttribute::TYPE.0, vec![0, 0]), named(PASSWORD, "foobar"), named(NAME, "joe")];
        assert_eq!((reply, end), (expected, None));
        let (reply, end) = answer(&mut Progress::new(true), &[(NAME, b""), (XauthAttribute::PASSCODE, b"")]);
        assert_eq!((reply, end), (vec![named(NAME, "joe"), named(XauthAttribute::PASSCODE, "foobar")], None));
    }

    #[test]
    fn what_only_a_person_can_answer_is_refused_by_its_name_and_no_password_is_told() {
        let asked: [(Asked<'_>, &str); 6] = [
            (
                &[(XauthAttribute::TYPE, &[0, 1]), (XauthAttribute::CHALLENGE, b"123456"), (PASSWORD, b"")],
                "RADIUS-CHAP",
            ),
            (&[(XauthAttribute::TYPE, &[0, 2]), (NAME, b""), (PASSWORD, b"")], "OTP"),
            (&[(XauthAttribute::TYPE, &[9, 9, 9, 9]), (PASSWORD, b"")], "XAUTH-TYPE"),
            (&[(XauthAttribute::NEXT_PIN, b""), (XauthAttribute::MESSAGE, b"Enter your new PIN")], "XAUTH-NEXT-PIN"),
            (&[(XauthAttribute::ANSWER, b""), (XauthAttribute::MESSAGE, b"y/n?")], "XAUTH-ANSWER"),
            (&[(NAME, b""), (PASSWORD, b""), (XauthAttribute::PASSCODE, b"")], "XAUTH-PASSCODE"),
        ];
        for (request, word) in asked {
            let error = refusal(request);
            assert!(matches!(error, Error::XauthUnanswerable { .. }) && error.to_string().contains(word), "{error}");
        }
        let said = refusal(&[(XauthAttribute::NEXT_PIN, b""), (XauthAttribute::MESSAGE, b"Enter your new PIN")]);
        assert!(said.to_string().contains("\"Enter your new PIN\""), "{said}");
    }

    #[test]
    fn a_password_is_told_once_and_a_second_question_is_a_refusal_with_the_words_of_the_peer() {
        let mut progress = Progress::new(true);
        assert_eq!(answer(&mut progress, &[(NAME, b"")]).1, None);
        assert_eq!(answer(&mut progress, &[(PASSWORD, b"")]).1, None);
        let again = [(PASSWORD, &b""[..]), (XauthAttribute::MESSAGE, b"wrong\x1b[2J, try again\0")];
        let (reply, end) = answer(&mut progress, &again);
        assert_eq!(reply, [(XauthAttribute::STATUS.0, vec![0, 0])]);
        assert_eq!(end, Some(Error::XauthRefused { message: "wrong?[2J, try again".to_owned() }));
    }

    #[test]
    fn questions_for_the_name_alone_come_to_an_end() {
        let mut progress = Progress::new(true);
        let answered = (0..100).filter(|_| answer(&mut progress, &[(NAME, b"")]).1.is_none()).count();
        assert_eq!(answered, usize::from(MAX_QUESTIONS));
    }

    #[test]
    fn only_one_is_ok_and_everything_else_is_a_refusal() {
        let status = XauthAttribute::STATUS;
        let judged = |set: Asked<'_>| {
            let mut progress = Progress::new(true);
            (progress.judge(&attributes(set)), progress.is_awaited())
        };
        for ok in [&[0, 1][..], &[1], &[0, 0, 0, 1]] {
            assert_eq!(judged(&[(status, ok)]), (Some(Ok(())), false));
        }
        for fail in [&[0, 0][..], &[], &[0, 2], &[1, 1], &[1; 9]] {
            let refused = Error::XauthRefused { message: "no such user".to_owned() };
            let set = [(status, fail), (XauthAttribute::MESSAGE, b"no such user")];
            assert_eq!(judged(&set), (Some(Err(refused)), true));
        }
        assert_eq!(judged(&[(NAME, b"")]), (None, true));
    }

    #[test]
    fn after_a_verdict_the_peer_may_ask_anew() {
        let mut progress = Progress::new(true);
        for _ in 0..3 {
            assert_eq!(answer(&mut progress, &[(NAME, b""), (PASSWORD, b"")]).1, None);
            assert_eq!(progress.judge(&attributes(&[(XauthAttribute::STATUS, &[0, 1])])), Some(Ok(())));
        }
    }

    #[test]
    fn neither_name_nor_password_is_shown() {
        let shown = format!("{:?}", user());
        assert!(!shown.contains("joe") && !shown.contains("foobar"), "{shown}");
    }
}
