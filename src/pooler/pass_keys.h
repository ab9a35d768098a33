#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>

#include "catalog/node.h"
#include "wire/scram.h"

namespace pgxc::pooler {

/// The keys that a client has proven itself with, for the nodes where its role has the same secret. They live
/// as long as a client that has brought them, in memory only.
class PassKey {
  public:
    explicit PassKey(wire::ScramPassThrough pass_through) : pass_through_(std::move(pass_through)) {}
    ~PassKey() { wire::forget(pass_through_.keys); }
    PassKey(const PassKey&) = delete;
    PassKey& operator=(const PassKey&) = delete;

    [[nodiscard]] const wire::ScramPassThrough& pass_through() const { return pass_through_; }
    /// That node has said no: it isn't asked again with these until a client brings them anew.
    void refused_by(const NodeKey& node) { refused_by_.insert(node); }
    [[nodiscard]] bool serves(const NodeKey& node) const { return !refused_by_.contains(node); }

  private:
    friend class PassKeys;
    wire::ScramPassThrough pass_through_;
    std::set<NodeKey> refused_by_;
};

/// The newest keys of each user that is here. Any connection that is opened for the user may use them, for
/// whichever of its clients: they are the role's, not the client's.
class PassKeys {
  public:
    [[nodiscard]] std::shared_ptr<PassKey> remember(const std::string& user,
                                                    const wire::ScramPassThrough& brought) {
        if (keys_.size() >= next_sweep_) sweep();
        std::weak_ptr<PassKey>& place = keys_[user];
        auto known = place.lock();
        if (known && known->pass_through() == brought) {
            known->refused_by_.clear();
            return known;
        }
        known = std::make_shared<PassKey>(brought);
        place = known;
        return known;
    }
    [[nodiscard]] std::shared_ptr<PassKey> find(const std::string& user) const {
        const auto found = keys_.find(user);
        return found == keys_.end() ? nullptr : found->second.lock();
    }
    [[nodiscard]] std::size_t size() const { return keys_.size(); }

  private:
    void sweep() {
        std::erase_if(keys_, [](const auto& entry) { return entry.second.expired(); });
        next_sweep_ = 2 * keys_.size() + 64;
    }
    std::map<std::string, std::weak_ptr<PassKey>> keys_;
    std::size_t next_sweep_ = 64;
};

}  // namespace pgxc::pooler
