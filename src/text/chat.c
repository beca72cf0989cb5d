typedef int placeholder_chat;
