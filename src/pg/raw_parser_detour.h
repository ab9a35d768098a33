#pragma once

/// Lets the server understand the grammar of coordinators and datanodes, without a parser hook in it.
namespace pgxc::pg {

/// Puts a detour at the entry of the server's raw_parser(). To be called in _PG_init while libraries are
/// preloaded, if pgxc.grammar is on; does nothing otherwise. Where the detour can't be made, or turns out to
/// be without effect, the server is left as it is and one WARNING says why: then the procedures of schema
/// pgxc are the interface.
void install_raw_parser_detour();

}  // namespace pgxc::pg
