#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "replication/promotion_plan.h"
#include "replication/restart_journal.h"
#include "replication/server_files.h"

/// The settings files of a restart promotion: what of a plan is an edit, and where it goes; and what is
/// looked at before anything is begun. Nothing here changes a file.
namespace pgxc::replication {

[[nodiscard]] bool edits(const PromotionStep& step);

/// Adds the step to the file in which it takes effect.
[[nodiscard]] Status add_edit(const ServerFiles& server, const PromotionStep& step,
                              std::vector<FileEdit>& files);

/// Does the server, starting now, see what the plan wants?
[[nodiscard]] Status verify_edits(const ServerFiles& server, const std::vector<PromotionStep>& steps);

/// Is it a slave that this process may restart, and is that port free (0 = not asked)?
[[nodiscard]] Status check_server(const ServerFiles& server, std::uint16_t port);

}  // namespace pgxc::replication
