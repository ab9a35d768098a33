#pragma once

#include <cassert>
#include <cstddef>

namespace pgxc::pooler {

template <class T>
class List;

/// What an object derives from to be on a List<T>: on one at a time. It leaves its list when it is destroyed.
template <class T>
class ListNode {
  public:
    ListNode() = default;
    ListNode(const ListNode&) = delete;
    ListNode& operator=(const ListNode&) = delete;
    [[nodiscard]] const List<T>* list() const { return list_; }
    void unlink() {
        if (list_ != nullptr) list_->remove(static_cast<T&>(*this));
    }

  protected:
    ~ListNode() {
        if (list_ != nullptr) list_->remove_node(*this);
    }

  private:
    friend class List<T>;
    ListNode* previous_ = nullptr;
    ListNode* next_ = nullptr;
    List<T>* list_ = nullptr;
};

/// A doubly linked list of objects that it does not own: moving one costs no allocation, and which list an
/// object is on is its state.
template <class T>
class List {
  public:
    List() = default;
    List(const List&) = delete;
    List& operator=(const List&) = delete;
    ~List() {
        while (first_ != nullptr) remove_node(*first_);
    }

    [[nodiscard]] bool empty() const { return first_ == nullptr; }
    [[nodiscard]] std::size_t size() const { return size_; }
    [[nodiscard]] T* front() { return static_cast<T*>(first_); }
    [[nodiscard]] const T* front() const { return static_cast<const T*>(first_); }
    [[nodiscard]] T* back() { return static_cast<T*>(last_); }
    /// The one behind `item`, which is on this list; nullptr at the end.
    [[nodiscard]] T* after(const T& item) {
        return static_cast<T*>(static_cast<const ListNode<T>&>(item).next_);
    }
    [[nodiscard]] const T* after(const T& item) const {
        return static_cast<const T*>(static_cast<const ListNode<T>&>(item).next_);
    }

    /// Moves `item` here from whatever list it is on.
    void push_back(T& item) {
        ListNode<T>& node = take(item);
        node.previous_ = last_;
        (last_ != nullptr ? last_->next_ : first_) = &node;
        last_ = &node;
    }
    void push_front(T& item) {
        ListNode<T>& node = take(item);
        node.next_ = first_;
        (first_ != nullptr ? first_->previous_ : last_) = &node;
        first_ = &node;
    }
    void remove(T& item) { remove_node(item); }

  private:
    friend class ListNode<T>;

    ListNode<T>& take(T& item) {
        item.unlink();
        ListNode<T>& node = item;
        node.list_ = this;
        ++size_;
        return node;
    }
    void remove_node(ListNode<T>& node) {
        assert(node.list_ == this);
        (node.previous_ != nullptr ? node.previous_->next_ : first_) = node.next_;
        (node.next_ != nullptr ? node.next_->previous_ : last_) = node.previous_;
        node.previous_ = nullptr;
        node.next_ = nullptr;
        node.list_ = nullptr;
        --size_;
    }

    ListNode<T>* first_ = nullptr;
    ListNode<T>* last_ = nullptr;
    std::size_t size_ = 0;
};

}  // namespace pgxc::pooler
