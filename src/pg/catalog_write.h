#pragma once

namespace pgxc {

/// While one lives, statements run as the bootstrap superuser and the triggers of the catalog let them
/// through. For statements of our own text only: every name in them is qualified. Must end before the
/// transaction does.
class CatalogWrite {
  public:
    CatalogWrite();
    ~CatalogWrite();
    CatalogWrite(const CatalogWrite&) = delete;
    CatalogWrite& operator=(const CatalogWrite&) = delete;
    /// Is there one?
    [[nodiscard]] static bool active();

  private:
    unsigned user_ = 0;
    int security_context_ = 0;
};

/// The catalog changes with this transaction: at its commit the monitor is told.
void note_catalog_change();

}  // namespace pgxc
