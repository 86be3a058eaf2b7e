// The order of writes to peers and flags, under load: a kernel of the last GPU waits for each flag
// and reads at once what it covers, step after step, while the first GPU goes on as soon as that is
// acknowledged. With one GPU both sides share it. It shows flags raised before their blocks are
// done, not every missing fence: those that were left out for a trial went unnoticed on H100s over
// NVLink. See comm/CONTRACT.md, comm.order.
#pragma once

namespace nanocp::bench {

// Runs some hundred steps of prepare_gqa and of send_queries; false if anything was read too early.
bool check_query_order();

}  // namespace nanocp::bench
