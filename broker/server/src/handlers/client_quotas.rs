//! DescribeClientQuotas (key 48), versions 0 and 1: quotas are not built, so none is set.

use millrace_io::Io;
use millrace_wire::messages::{DescribeClientQuotasRequest, DescribeClientQuotasResponse};

use crate::request::{Outcome, Request};

pub(super) fn describe<I: Io>(request: &Request) -> Outcome<I> {
    if let Err(malformed) = request.decode::<DescribeClientQuotasRequest<'_>>() {
        return malformed.into();
    }
    let entries = Some(Vec::new().into());
    let body = DescribeClientQuotasResponse { entries, ..Default::default() };
    Outcome::Reply(request.head.reply(&body))
}
